"""Which folders are splits, which are classes, and how many pictures are held out of the rest."""

import unicodedata

import pytest
from picture_files import loaded, names_of, picture, pictures, settings

from vargen import data, paths
from vargen.data import splits
from vargen.errors import UserError


def make(root, *names):
    """Pictures by their suffix, folders, which end with "/", and empty files."""
    for name in names:
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
        elif name.endswith(".png"):
            picture(root / name)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()


@pytest.mark.parametrize(
    "held", ("val", "valid", "validation", "eval", "dev", "test", "testing", "VAL", "Test", "Dev")
)
@pytest.mark.parametrize("training", ("train", "Train", "TRAIN", "training", "Training"))
def test_folders_that_are_splits(tmp_path, training, held):
    pictures(
        tmp_path,
        *(f"{training}/{c}/{i}.png" for c in "ab" for i in range(3)),
        f"{held}/a/9.png",
        f"{held}/b/9.png",
    )
    train, test = loaded(tmp_path)
    assert train.classes == test.classes == ["a", "b"] and (len(train), len(test)) == (6, 2)
    assert names_of(test) == [f"{held}/a/9.png", f"{held}/b/9.png"] and train.labels.tolist() == [
        0,
        0,
        0,
        1,
        1,
        1,
    ]


@pytest.mark.parametrize("training", ("train", "Training"))
@pytest.mark.parametrize(
    "beside", ((), ("notes/readme.txt", "labels.csv", ".cache/0.png"), ("test/", "val/a/"))
)
def test_a_training_folder_alone(tmp_path, training, beside):
    """Its subfolders are the classes, not `train` itself; beside it there may be what holds no pictures."""
    pictures(tmp_path, *(f"{training}/{c}/{i}.png" for c in "ab" for i in range(3)))
    make(tmp_path, *beside)
    train, test = loaded(tmp_path)
    assert train.classes == ["a", "b"] and (len(train), len(test)) == (4, 2)
    assert train.root.name == training


def test_a_class_called_train(tmp_path):
    """Where other classes stand beside it, and no held-out folder does."""
    pictures(tmp_path, *(f"{c}/{i}.png" for c in ("train", "bus", "car") for i in range(3)))
    assert loaded(tmp_path)[0].classes == ["bus", "car", "train"]


def test_a_flat_test_folder_beside_a_labelled_one(tmp_path, capsys):
    """As in competitions: nobody says what its pictures are."""
    pictures(
        tmp_path, "train/a/0.png", "train/b/0.png", "test/0.png", "test/1.png", "val/a/1.png", "val/b/1.png"
    )
    assert names_of(loaded(tmp_path)[1]) == ["val/a/1.png", "val/b/1.png"]
    assert f"folder {tmp_path}: val is held out, left aside: test\n" in capsys.readouterr().out
    pictures(tmp_path, "test/unknown/2.png")
    assert names_of(loaded(tmp_path)[1]) == ["val/a/1.png", "val/b/1.png"]


def test_a_flat_test_folder_alone(tmp_path, capsys):
    pictures(tmp_path, *(f"train/{c}/{i}.png" for c in "ab" for i in range(5)), "test/0.png")
    train, test = loaded(tmp_path)
    assert len(train) + len(test) == 10 and set(test.labels) == {0, 1}
    assert f"folder {tmp_path}: a share of train is held out, left aside: test\n" in capsys.readouterr().out


def test_pictures_in_no_class_folder_are_one_class(tmp_path, capsys):
    """Holiday pictures: hundreds in one folder."""
    root = tmp_path / "holidays"
    pictures(root, *(f"{i}.png" for i in range(30)), ".hidden.png")
    (root / "notes.txt").write_text("")
    train, test = loaded(root)
    assert train.classes == ["holidays"] and len(train) + len(test) == 30 and len(test) > 0
    assert set(train.labels) == {0} and not set(names_of(train)) & set(names_of(test))
    said = capsys.readouterr().out
    assert "no class folders, so that all 30 pictures are one class, holidays\n" in said
    assert "2 passed over: 1 .txt, 1 hidden\n" in said


@pytest.mark.parametrize("training", ("train", "Training"))
@pytest.mark.parametrize("held", splits.HELD_OUT)
def test_flat_splits_are_one_class(tmp_path, training, held, capsys):
    """Named as the folder that was given; the held-out pictures are those that were held out."""
    root = pictures(
        tmp_path / "holidays", *(f"{training}/{i}.png" for i in range(4)), f"{held}/4.png", f"{held}/5.png"
    )
    train, test = loaded(root)
    assert train.classes == test.classes == ["holidays"] and set(train.labels) == set(test.labels) == {0}
    assert names_of(train) == [f"{training}/{i}.png" for i in range(4)]
    assert names_of(test) == [f"{held}/4.png", f"{held}/5.png"]
    assert (
        f"{training}: no class folders, so that all 4 pictures are one class, holidays\n"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("beside", ((), ("labels.csv", ".cache/0.png"), ("test/", "notes/readme.txt")))
def test_a_flat_training_folder_alone(tmp_path, beside):
    root = pictures(tmp_path / "holidays", *(f"train/{i}.png" for i in range(30)))
    make(root, *beside)
    train, test = loaded(root)
    assert train.classes == test.classes == ["holidays"] and len(train) + len(test) == 30 and len(test) > 0
    assert not set(names_of(train)) & set(names_of(test))


def test_of_several_flat_held_out_folders_the_first_in_order(tmp_path, capsys):
    """Of those that are flat as the training folder is."""
    pictures(tmp_path, "train/0.png", "test/a/1.png", "val/2.png", "valid/3.png")
    assert names_of(loaded(tmp_path)[1]) == ["val/2.png"]
    assert f"folder {tmp_path}: val is held out, left aside: test, valid\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ("train", "test", "dev", "Val"))
@pytest.mark.parametrize("others", (("bus", "car"), ("bus/red", "car/blue"), ("bus",)))
def test_a_class_named_as_a_split(tmp_path, name, others):
    """Beside other classes, and not beside its opposite."""
    pictures(tmp_path, *(f"{c}/{i}.png" for c in (name, *others) for i in range(3)))
    assert loaded(tmp_path)[0].classes == sorted(
        [name, *(c.partition("/")[0] for c in others)], key=str.casefold
    )


@pytest.mark.parametrize(
    "classes",
    (
        ("test_tube", "train_station"),
        ("evaluate", "trainee"),
        ("device", "trains"),
        ("testament", "value", "strain"),
        ("2023/beach", "2024/beach"),
        ("rail/train/steam", "rail/tram", "road/bus"),
    ),
)
def test_classes_that_only_resemble_splits(tmp_path, classes):
    pictures(tmp_path, *(f"{c}/{i}.png" for c in classes for i in range(3)))
    assert loaded(tmp_path)[0].classes == sorted({c.partition("/")[0] for c in classes})


def test_a_few_loose_pictures_beside_class_folders_are_passed_over(tmp_path, capsys):
    pictures(tmp_path, "0.png", "1.png", "a/0.png", "a/1.png")
    train, test = loaded(tmp_path)
    assert train.classes == ["a"] and len(train) + len(test) == 2
    assert "2 passed over: 2 outside the class folders\n" in capsys.readouterr().out


def test_loose_pictures_beside_splits_are_said(tmp_path, capsys):
    pictures(tmp_path, "0.png", "train/a/0.png", "train/a/1.png", "test/a/2.png")
    assert len(loaded(tmp_path)[0]) == 2
    assert f"folder {tmp_path}: test is held out, left aside: 1 in no folder\n" in capsys.readouterr().out


def test_of_several_held_out_folders_the_first_in_order(tmp_path, capsys):
    """`splits.HELD_OUT` is the order."""
    pictures(tmp_path, *(f"{s}/a/{s}.png" for s in ("train", *splits.HELD_OUT)), "more/a/0.png")
    for i, name in enumerate(splits.HELD_OUT):
        assert names_of(data.load(settings(tmp_path), "test")) == [f"{name}/a/{name}.png"]
        said = capsys.readouterr().out
        for other in (*splits.HELD_OUT[i + 1 :], "more")[:1]:
            assert f"folder {tmp_path}: {name} is held out, left aside: " in said and other in said
        paths.path(tmp_path / name).rmtree()


def test_classes_that_the_held_out_folder_lacks_are_said(tmp_path, capsys):
    """And keep their numbers."""
    pictures(tmp_path, *(f"train/{c}/0.png" for c in "abcd"), "val/b/1.png", "val/d/1.png")
    (tmp_path / "val" / "c").mkdir()
    train, test = loaded(tmp_path)
    assert train.classes == test.classes == list("abcd") and test.labels.tolist() == [1, 3]
    assert f"folder {tmp_path / 'val'}: no pictures of 2 of 4 classes: a, c\n" in capsys.readouterr().out


def test_names_in_the_form_of_a_mac(tmp_path):
    """`é` in one character or two: the same class, in the same place, and shown as training has it."""
    here, there = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    pictures(
        tmp_path,
        *(f"train/{c}/0.png" for c in (here, "cafz", "b")),
        *(f"val/{c}/1.png" for c in (there, "b")),
    )
    train, test = loaded(tmp_path)
    assert train.classes == test.classes == ["b", "cafz", here]
    assert names_of(test) == ["val/b/1.png", f"val/{there}/1.png"] and test.labels.tolist() == [0, 2]
    for form in ("NFC", "NFD"):  # a copy has the same order, and holds out the same files
        names = [unicodedata.normalize(form, f"{form}/é{i}/é{j}.png") for i in range(2) for j in range(40)]
        pictures(tmp_path, *names)
    found = [names_of(data.load(settings(tmp_path / form), "test")) for form in ("NFC", "NFD")]
    assert found[0] and found[0] == [unicodedata.normalize("NFC", name) for name in found[1]] != found[1]


@pytest.mark.parametrize(
    "names, message",
    [
        (("val/a/0.png", "test/a/0.png"), "expected train/ beside test/, found none"),
        (
            ("train/a/0.png", "Train/a/0.png", "val/a/0.png"),
            "one folder of training pictures, found Train and train",
        ),
        (("train/a/0.png", "training/a/0.png"), "one folder of training pictures, found train and training"),
        (
            ("train/0.png", "train/1.png", "test/a/1.png"),
            "train: expected subfolders of images, one per class, as in test/, .*, and 2 outside the class folders",
        ),
        (("train/",), "train: expected subfolders of images, one per class, found none$"),
        (("train/a/0.png", "valid/a/0.png", "Valid/a/0.png"), "of held-out pictures, found Valid and valid"),
        (
            ("train/a/0.png", "val/a/0.png", "test/a/0.png", "Test/"),
            "of held-out pictures, found Test and test",
        ),
        (("train/0.png", "val/1.png", "VAL/2.png"), "of held-out pictures, found VAL and val"),
        (("val/0.png", "test/0.png"), "expected train/ beside test/, found none"),
        (
            ("train/a/0.png", "test/a/0.png", "test/c/0.png"),
            "test: expected the classes of .*train, found another: c",
        ),
        (("train/a/0.png", "test/c, d/0.png"), "found another: 'c, d'$"),
        (("train/a/0.png", "test/c/0.png"), "test: expected the classes of .*train, found another: c"),
        (
            ("train/a/0.png", "train/b/x.txt", "test/a/0.png"),
            r"train/b: expected images \(.*\), found 1 .txt",
        ),
        (("a/0.png", "a/1.png", "b/"), r"b: expected images \(.*\), found none"),
    ],
)
def test_splits_and_classes_that_will_not_do(tmp_path, names, message):
    make(tmp_path, *names)
    with pytest.raises(UserError, match=message):
        loaded(tmp_path)


def under(folder, *names):
    return [f"{folder}/{name}/{i}.png" for name in names for i in range(2)]


TWO = ("train/a", "train/b", "test/a", "test/b")


@pytest.mark.parametrize(
    "names, message",
    [
        # One level too high, as after unzipping.
        (under("data", *TWO), "found splits in data/; expected --config.data.path={root}/data$"),
        (
            under("data", "Train/a", "VALID/a"),
            "found splits in data/; expected --config.data.path={root}/data$",
        ),
        (under("data", "train", "test"), "found splits in data/; expected --config.data.path={root}/data$"),
        (
            under("data", "train/a", "train/b"),
            "found splits in data/; expected --config.data.path={root}/data$",
        ),
        (
            under("data", "train/a", "holdout/a"),
            "found splits in data/; expected --config.data.path={root}/data$",
        ),
        (under("data", "train_set/a", "test_set/a"), "found splits in data/; .*path={root}/data$"),
        (under("v1/data", *TWO), "found splits in v1/data/; expected --config.data.path={root}/v1/data$"),
        ([*under("images", *TWO), "labels/train/0.txt"], "found splits in images/; .*path={root}/images"),
        ([*under("data", *TWO), "docs/0.png"], "found splits in data/; .*path={root}/data$"),
        (
            under("train", *TWO),
            "train: found splits in it; expected --config.data.path={root}/train$",
        ),
        # Splits inside of classes.
        (
            [*under("x", "train", "test"), *under("y", "train", "test")],
            "found splits in x/, y/; expected train/ and test/ outside the classes, or --config.data.path={root}/x$",
        ),
        (
            [*under("x", "train", "test"), *under("y", "train")],
            "found splits in x/; expected train/ and test/ outside",
        ),
        (
            under("train", "x/train", "x/val", "y/train"),
            "train: found splits in x/; expected train/ and test/ outside",
        ),
        # Held out under a name that isn't known.
        (
            under(".", "train/a", "holdout/a"),
            "expected test/ or val/ beside train/, which has class folders, found holdout/: rename it or",
        ),
        (
            under(".", "train/a", "held-out/a"),
            "found held-out/: rename it or move it away; or rename train/, if it is a class$",
        ),
        (under(".", "train/a", "query/c"), "found query/: rename it"),
        (under(".", "train/a", "extra/q"), "found extra/: rename it"),
        (
            under(".", "Training/a", "bus", "car"),
            "beside Training/, which has class folders, found bus/",
        ),
        ([*under(".", "train/a", "holdout/a"), "train/0.png"], "found holdout/: rename it"),
        # Splits under other names.
        (
            under(".", "train_set/a", "test_set/a"),
            "expected train/ beside test/, found train_set/ and test_set/: rename",
        ),
        (
            under(".", "train_set", "test_set"),
            "expected train/ beside test/, found train_set/ and test_set/: rename",
        ),
        (under(".", "TrainSet/a", "ValImages/a"), "found TrainSet/ and ValImages/"),
        (under(".", "train2017/a", "val2017/a"), "found train2017/ and val2017/"),
        (under(".", "trainA", "trainB", "testA", "testB"), "found trainA/ and testA/"),
        (under(".", "dog_train", "dog_test", "cat_train"), "found dog_train/ and dog_test/"),
        (under(".", "training images/a", "test/a"), "found training images/ and test/"),
        (under(".", "train/a", "test_data/a"), "found train/ and test_data/"),
        (
            under(".", "train_set/a", "holdout/a"),
            "expected train/, found class folders in train_set/: rename it",
        ),
        (under(".", "train_set/a"), "expected train/, found class folders in train_set/: rename it"),
        (
            under(".", "known/a", "known/b", "test/a", "test/b"),
            "beside test/, found the same class folders in known/",
        ),
        # Classes or splits?
        (
            under(".", "train", "test", "bus"),
            "expected class folders in train/ and test/, or those two alone, found bus/ too",
        ),
        # More pictures outside the folders than in them.
        (
            [*under(".", "beach"), *(f"{i}.png" for i in range(3))],
            "class folders, or all outside of any, found 3 outside and 2 in 1 class folder: move the former into class",
        ),
        (
            [*under(".", "a", "b"), *(f"{i}.png" for i in range(5))],
            "found 5 outside and 4 in 2 class folders: move",
        ),
        (["0.png", "1.png", "notes/a.txt"], "found 2 outside and 0 in 1 class folder"),
        (["0.png", "notes/"], "found 1 outside and 0 in 1 class folder"),
        (
            [*(f"train/{i}.png" for i in range(3)), *under("train", "a")],
            "train: .* found 3 outside and 2 in 1 class",
        ),
        (["train/0.png", "train/notes/a.txt"], "train: .* found 1 outside and 0 in 1 class folder"),
        (
            [*under(".", "train/a"), "val/a/2.png", "val/3.png", "val/4.png"],
            "val: .* found 2 outside and 1 in 1 class",
        ),
        (
            [*under(".", "train"), *(f"{i}.png" for i in range(3))],
            "found 3 outside and 2 in train/: move the former into",
        ),
    ],
)
def test_what_may_be_splits_or_classes_is_refused(tmp_path, names, message):
    """In one line that names the folder and what to do; never mixed in silence."""
    make(tmp_path, *names)
    with pytest.raises(UserError, match=message.format(root=tmp_path)) as caught:
        loaded(tmp_path)
    assert str(caught.value).startswith(f"folder {tmp_path}") and "\n" not in str(caught.value)


# ---- Held-out files that are training files too ------------------------------------------------------------


def test_equal_pictures_alone_leave_nothing_to_hold_out(tmp_path):
    content = picture(tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "1.png").write_bytes(content)
    assert len(data.load(settings(tmp_path))) == 2
    with pytest.raises(UserError, match="expected two different images of a class.*test split, found none"):
        data.load(settings(tmp_path), "test")


@pytest.mark.parametrize("fraction, held", [(1e-9, 2), (0.999999, 6)])
def test_extreme_fractions_leave_each_class_on_both_sides(tmp_path, fraction, held):
    pictures(tmp_path, *(f"{name}/{i}.png" for name in "ab" for i in range(4)))
    train, test = loaded(tmp_path, test_fraction=fraction)
    assert len(test) == held and len(train) == 8 - held and set(train.labels) == set(test.labels) == {0, 1}


@pytest.mark.parametrize("fraction", (0, 1, -0.1, float("nan"), "0.1", True))
def test_fractions_that_are_none(tmp_path, fraction):
    pictures(tmp_path, "a/0.png", "a/1.png")
    with pytest.raises(UserError, match="data.test_fraction: expected a number"):
        data.load(dict(settings(tmp_path), test_fraction=fraction))


def test_one_image_a_class_leaves_nothing_to_hold_out(tmp_path):
    pictures(tmp_path, "a/0.png", "b/0.png")
    assert len(data.load(settings(tmp_path))) == 2
    with pytest.raises(UserError, match="expected two different images of a class.*test split, found none"):
        data.load(settings(tmp_path), "test")
