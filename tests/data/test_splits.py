"""Which folders are splits, which are classes, and which pictures are held out of the rest."""

import unicodedata

import numpy as np
import pytest
from picture_files import picture, pictures, settings

from vargen import data, paths
from vargen.data import duplicates, sources, splits
from vargen.errors import UserError


def loaded(root, **changes):
    return [data.load(settings(root, **changes), split) for split in ("train", "test")]


def names_of(source):
    return [file.relative_to(source.root).as_posix() for file in source.files]


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
    for name in beside:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).mkdir(parents=True) if name.endswith("/") else (tmp_path / name).touch()
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
    pictures(root, "beach/1.png", "beach/2.png")  # now there is one
    assert loaded(root)[0].classes == ["beach"]


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
            ("train/0.png", "train/1.png"),
            "train: expected subfolders of images, .*, and 2 outside the class folders",
        ),
        (("train/0.png", "test/a/1.png"), "train: expected subfolders of images"),
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
    for name in names:
        if name.endswith(".png"):
            picture(tmp_path / name)
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        loaded(tmp_path)


# ---- Held out by name and content --------------------------------------------------------------------------


def by_content(*found):
    return [{file.read_bytes() for file in source.files} for source in found]


def test_equal_files_lie_on_one_side(tmp_path):
    """Copies in the same class, in others and behind links, of any name and size."""
    rng = np.random.default_rng(0)
    contents = [rng.bytes(size) for size in (10, 10, 10, 70_000, 70_000, 0, 33) for _ in range(10)]
    for k, content in enumerate(contents):
        for copy in range(1 + k % 4):
            file = tmp_path / f"{'abc'[(k + copy) % 3]}" / f"{'x' * copy}{k}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
    (tmp_path / "c" / "link.png").symlink_to(tmp_path / "a" / "0.png")
    for fraction in (0.1, 0.5, 0.9, 1e-9, 1 - 1e-9):
        train, test = loaded(tmp_path, test_fraction=fraction)
        assert len(train) + len(test) == sum(1 + k % 4 for k in range(len(contents))) + 1
        inside = by_content(train, test)
        assert not inside[0] & inside[1]
        assert set(train.labels) == set(test.labels) == {0, 1, 2}


def test_pieces_that_are_equal_are_not_yet_files_that_are(tmp_path):
    """Same size, same middle, other ends; and an end of a file longer than a piece."""
    middle = bytes(duplicates.PIECE)
    contents = [b"a" * 9 + middle + b"b" * 9, b"c" * 9 + middle + b"b" * 9, b"a" * 9 + middle + b"d" * 9]
    contents += [contents[0], b"x", b"y", b"x", b"xx"]
    files = []
    for i, content in enumerate(contents):
        files.append(tmp_path / str(i))
        files[-1].write_bytes(content)
    numbers = duplicates.same_content([str(f) for f in files] + [str(tmp_path / "gone")])
    assert [[i for i, n in enumerate(numbers) if n == m] for m in sorted(set(numbers))] == [
        [0, 3], [1], [2], [4, 6], [5], [7], [8],
    ]  # fmt: skip


def test_only_files_of_equal_size_are_read(tmp_path, monkeypatch):
    files = []
    for i in range(50):
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(bytes(100_000 + i // 2 * (i < 40) + i * (i >= 40)))
    for i in range(0, 40, 2):
        files[i].write_bytes(b"x" + bytes(100_000 + i // 2 - 1))  # another first byte, the same middle
    read = []
    digest = duplicates._digest
    monkeypatch.setattr(duplicates, "_digest", lambda *given: (read.append(given), digest(*given))[1])
    names = [str(f) for f in files]
    assert len(set(duplicates.same_content(names))) == 50
    assert sorted({name for name, *_ in read}) == sorted(names[:40])
    assert sum(most[0] if most else 100_000 for _, _, *most in read) == 40 * (100_000 + duplicates.PIECE)
    files[0].write_bytes(files[1].read_bytes())
    assert len(set(duplicates.same_content(names))) == 49


def test_different_files_are_held_out_as_they_always_were(tmp_path):
    """By SHA-256 of `class/name` alone: frozen, so that nobody's split changes with the version."""
    pictures(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(12)))
    assert names_of(loaded(tmp_path)[1]) == HELD


HELD = ["a/0.png", "b/0.png"]


def test_a_copy_moves_no_original(tmp_path):
    pictures(tmp_path, *(f"a/{i}.png" for i in range(60)))
    before = set(names_of(loaded(tmp_path)[1]))
    for i in range(60):
        content = (tmp_path / "a" / f"{i}.png").read_bytes()
        for name in (f"copy of {i}", f"{i} (1)", f"{i}-copy"):
            (tmp_path / "a" / f"{name}.png").write_bytes(content)
    after = set(names_of(loaded(tmp_path)[1]))
    assert {name for name in after if name[2:-4].isdigit()} == before and len(after) == 4 * len(before)


def test_contents_in_several_groups():
    """Training has every group; the test split has those that it can have then."""
    keys = ["a", "b", "c", "d", "e"]
    groups = [0, 0, 1, 1, 2]
    contents = [0, 1, 1, 2, 2]
    for fraction in (0.0, 0.3, 0.7, 1.0):
        test = sources.held_out(keys, groups, fraction, contents)
        assert (
            (test[1] == test[2]) and (test[3] == test[4]) and not test[4]
        )  # of group 2 there is nothing else
        train = {g for g, t in zip(groups, test) if not t}
        assert train == {0, 1, 2}
    rng = np.random.default_rng(0)
    for _ in range(200):
        groups, contents = rng.integers(0, 4, 12), rng.integers(0, 6, 12)
        test = sources.held_out([str(i) for i in range(12)], groups, rng.random(), contents)
        assert set(groups[~test]) == set(groups)
        assert not set(contents[test]) & set(contents[~test])


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
