"""Folders as people have them: foreign names, broken files, what may change; here and in a bucket."""

import errno
import io
import itertools
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from picture_files import picture, pictures, settings
from PIL import Image

from vargen import config, data, paths
from vargen.data import checking, image_file
from vargen.errors import UserError

NAMES = [
    "plain",
    "deux mots",
    "кошка",
    "猫",
    "a\nb",
    "tab\t",
    "~root",
    "\x1b[31m",
    "-x",
    "caf\udce9",
    "a'\"",
    "🐈",
]


def test_names_in_any_script(tmp_path, monkeypatch):
    """Classes are text, also where bytes aren't UTF-8; their names survive JSON."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        pictures(tmp_path, f"{name}/{name}0.png", f"{name}/{name}1.png")
    train, test = (data.load(settings("."), split) for split in ("train", "test"))
    assert set(train.classes) == set(NAMES) and json.loads(json.dumps(train.classes)) == train.classes
    assert len(train) == len(test) == len(NAMES)
    assert data.arrays(train)[0].shape == (len(NAMES), 8, 8, 3)
    assert train.fingerprint() != test.fingerprint()
    paths.write_text(tmp_path / "report.html", ", ".join(train.classes))
    assert r"caf\udce9" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("locale", (dict(LC_ALL="C"), dict(LC_ALL="C", PYTHONUTF8="0"), dict(PYTHONUTF8="1")))
def test_names_under_any_locale(tmp_path, locale):
    names = ["кошка", "caf\udce9", "猫"]
    for name in names:
        pictures(tmp_path, f"{name}/0é.png", f"{name}/1é.png")
    code = (
        "import json, sys; from vargen import config, data; "
        "s = data.load(config.images('folder', 8, 3, 0, path=sys.argv[1])); "
        "print(json.dumps([s.classes, s.fingerprint(), s[0]['label']]))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, check=True, env=environment | locale
    )
    assert json.loads(found.stdout) == [sorted(names), data.load(settings(tmp_path)).fingerprint(), 0]


def test_what_may_not_be_read(tmp_path, monkeypatch):
    pictures(tmp_path, "a/0.png", "a/1.png", "b/0.png", "b/1.png")
    source = data.load(settings(tmp_path))
    denied = PermissionError(errno.EACCES, "Permission denied", "x")

    def refuse(*args, **options):
        raise denied

    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", refuse)
        with pytest.raises(
            UserError, match=r"\.png: expected one that can be read, found: Permission denied"
        ):
            source[0]
    listing = os.listdir
    monkeypatch.setattr(
        type(source.root), "iterdir", lambda p: refuse() if p.name == "b" else map(p.joinpath, listing(p))
    )
    with pytest.raises(UserError, match="b: expected one that can be read, found: Permission denied"):
        data.load(settings(tmp_path))


@pytest.mark.parametrize(
    "path, message",
    [
        ("", "data.path: expected a folder"),
        (" ", "data.path: expected a path"),
        ("~nosuchuser/x", "data.path: expected a path, found the home of no user"),
        ("a/0.png", "0.png: expected a folder of class/name.png, found a file"),
        ("a/0.png/x", "found no such folder"),
        ("x" * 5000, "found no such folder"),
        ("nosuch", "nosuch: expected a folder of class/name.png, found no such folder"),
        ("empty", "empty/b: expected images .*found none"),
        ("other", "test: expected the classes of .*train, found another: c"),
        ("gs:/data/x", "data.path: expected a path of this machine, gs:// or s3://"),
        ("gs://", "data.path: expected gs://BUCKET"),
    ],
)
def test_paths_that_will_not_do(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    pictures(
        tmp_path,
        "a/0.png",
        "empty/a/0.png",
        "other/train/a/0.png",
        "other/test/a/0.png",
        "other/test/c/0.png",
    )
    (tmp_path / "empty" / "b").mkdir()
    with pytest.raises(UserError, match=message):
        data.load(settings(path))
        data.load(settings(path), "test")


def rename(root):
    (root / "a" / "0.png").rename(root / "a" / "9.png")


def swap(root):
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (root / old).rename(root / new)


CHANGES = dict(
    size=lambda root: picture(root / "a" / "0.png", (40, 40)),
    time=lambda root: os.utime(root / "a" / "0.png", ns=(1, 1)),
    name=rename,
    new=lambda root: picture(root / "a" / "7.png"),
    gone=lambda root: (root / "a" / "0.png").unlink(),
    class_name=lambda root: (root / "a").rename(root / "c"),
    classes_swapped=swap,
)


@pytest.mark.parametrize("change", CHANGES)
def test_fingerprints_tell_data_apart(tmp_path, change):
    root = pictures(
        tmp_path / "here", "train/a/0.png", "train/a/1.png", "train/b/0.png", "test/a/0.png", "test/b/0.png"
    )
    before = data.load(settings(root)).fingerprint()
    assert data.load(settings(root)).fingerprint() == before
    root.rename(tmp_path / "there")  # where it is makes no difference
    assert data.load(settings(tmp_path / "there")).fingerprint() == before
    CHANGES[change](tmp_path / "there" / "train")
    if change == "class_name":
        (tmp_path / "there" / "test" / "a").rename(tmp_path / "there" / "test" / "c")
    assert data.load(settings(tmp_path / "there")).fingerprint() != before


def test_fingerprint_of_a_file_that_is_gone(tmp_path):
    source = data.load(settings(pictures(tmp_path, "a/0.png", "a/1.png")))
    source.files[0].unlink()
    with pytest.raises(UserError, match=f"{source.files[0].name}: expected a file, found none"):
        source.fingerprint()


def test_a_bucket(monkeypatch):
    """Pictures in gs:// are listed, read and told apart as those on a disk are."""
    server = pytest.importorskip("gcp_storage_emulator.server").create_server("localhost", 0, in_memory=True)
    server.start()
    try:
        port = server._api._httpd.socket.getsockname()[1]
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
        import gcsfs

        gcsfs.GCSFileSystem.clear_instance_cache()
        gcsfs.GCSFileSystem(endpoint_url=f"http://localhost:{port}").mkdir("pictures")
        gcsfs.GCSFileSystem.clear_instance_cache()
        root = paths.path("gs://pictures/all")
        for name in ("a/0.png", "a/1.png", "猫/deep/0.PNG", "猫/1.png", "猫/.hidden/2.png", "猫/2.txt"):
            buffer = io.BytesIO()
            Image.new("RGB", (9, 6), (200, len(name), 1)).save(buffer, "png")
            (root / name).write_bytes(buffer.getvalue())
        train, test = (data.load(settings(root), split) for split in ("train", "test"))
        assert train.classes == ["a", "猫"] and (len(train), len(test)) == (2, 2)
        assert train[0]["image"].shape == (6, 9, 3) and (train[0]["image"][0, 0, ::2] == (200, 1)).all()
        before = train.fingerprint()
        train.files[0].write_bytes(buffer.getvalue() + b"0")
        gcsfs.GCSFileSystem.clear_instance_cache()
        assert data.load(settings(root)).fingerprint() != before
        for path, message in (
            ("none", "no such folder"),
            ("all/a/0.png", "a file"),
        ):
            with pytest.raises(UserError, match=message):
                data.load(settings(f"gs://pictures/{path}"))
        assert data.load(settings("gs://pictures/all/a")).classes == ["a"]  # a folder of pictures alone
    finally:
        server.stop()


# ---- Broken files ------------------------------------------------------------------------------------------


def broken(root, *names):
    """Cuts files in the middle."""
    for name in names:
        file = root / name
        file.write_bytes(file.read_bytes()[: os.path.getsize(file) - 30])


def many(root, classes="ab", count=20):
    return pictures(
        root,
        *(f"train/{c}/{i}.png" for c in classes for i in range(count)),
        *(f"val/{c}/0.png" for c in classes),
    )


def test_the_next_of_its_class_takes_a_broken_ones_place(tmp_path, capsys):
    many(tmp_path)
    broken(tmp_path, "train/a/3.png", "train/a/19.png", "train/b/0.png", "train/b/1.png")
    (tmp_path / "train" / "b" / "19.png").write_text("nothing")
    source = data.load(settings(tmp_path, skip_broken=5))
    at = {f"{'ab'[source.labels[i]]}/{file.name[:-4]}": i for i, file in enumerate(source.files)}
    for name, taken in (
        ("a/3", "a/4"),
        ("a/19", "a/0"),
        ("b/0", "b/2"),
        ("b/1", "b/2"),
        ("b/19", "b/2"),
        ("a/5", "a/5"),
    ):
        found = source[at[name]]
        assert found["label"] == "ab".index(name[0])
        expected = Image.open(tmp_path / "train" / f"{taken}.png").getpixel((0, 0))
        assert tuple(found["image"][0, 0]) == expected
    said = capsys.readouterr().out
    assert (
        said.count("skipped") == 5
        and "b/19.png: expected a whole image" in said
        and ": skipped, 5 of at most 5" in said
    )
    for _ in range(3):
        data.arrays(
            data.load(settings(tmp_path, skip_broken=5))
        )  # each is said once, however often it is met
    assert not capsys.readouterr().out


def test_a_run_that_starts_again_sees_the_same(tmp_path):
    """Whichever process, step and thread meets a broken file first."""
    many(tmp_path)
    broken(tmp_path, *(f"train/{c}/{i}.png" for c in "ab" for i in (1, 7, 8, 15)))

    def take(start, rows=None):
        source = data.load(settings(tmp_path, skip_broken=8))
        options = dict(batch_size=6, seed=3, settings=dict(shift=1, flip=True, crop="random"))
        return list(
            itertools.islice(data.batches(source, start_step=start, rows=rows, **options), 14 - start)
        )

    whole = take(0)
    for start in (1, 5, 9):
        for one, other in zip(take(start), whole[start:], strict=True):
            assert all((one[k] == other[k]).all() for k in ("image", "label"))
    for one, other in zip(take(0, [4, 1]), whole, strict=True):
        assert all((one[k] == other[k][[4, 1]]).all() for k in ("image", "label"))
    labels = [np.concatenate([b["label"] for b in whole])[:80].reshape(2, 40)]
    assert (np.sort(labels[0]) == np.repeat([0, 1], 20)).all()  # of each class as many as there are files


def test_one_too_many_is_refused(tmp_path):
    """Counted over both splits."""
    many(tmp_path)
    broken(tmp_path, *(f"train/a/{i}.png" for i in range(10)), "val/b/0.png")
    data.arrays(data.load(settings(tmp_path, skip_broken=10)))
    with pytest.raises(
        UserError, match=r"val/b/0.png: expected a whole .*; data.skip_broken: expected at most 10 such files"
    ):
        data.arrays(data.load(settings(tmp_path, skip_broken=10), "test"))
    data.arrays(data.load(settings(tmp_path, skip_broken=10)))
    with pytest.raises(UserError, match=r"val/b/0.png: expected a whole"):
        data.arrays(data.load(settings(tmp_path), "test"))


def test_mended_files_count_no_more(tmp_path):
    many(tmp_path)
    broken(tmp_path, "train/a/0.png", "train/a/1.png")
    data.arrays(data.load(settings(tmp_path, skip_broken=2)))
    picture(tmp_path / "train" / "a" / "0.png", (5, 5))
    (tmp_path / "train" / "a" / "1.png").unlink()
    broken(tmp_path, "train/b/0.png", "train/b/1.png")
    data.arrays(data.load(settings(tmp_path, skip_broken=2)))
    broken(tmp_path, "train/b/2.png")
    with pytest.raises(UserError, match="at most 2 such files"):
        data.arrays(data.load(settings(tmp_path, skip_broken=2)))


def test_a_class_of_broken_files(tmp_path):
    many(tmp_path, count=2)
    broken(tmp_path, "val/a/0.png")
    with pytest.raises(UserError, match="expected a whole image of class 'a', found none"):
        data.arrays(data.load(settings(tmp_path, skip_broken=9), "test"))


def test_what_is_gone_or_cannot_be_read_is_not_skipped(tmp_path, monkeypatch):
    """It may be there another time, and codes would differ."""
    many(tmp_path, count=2)
    source = data.load(settings(tmp_path, skip_broken=9))
    source.files[0].unlink()
    with pytest.raises(UserError, match="expected a file, found none"):
        source[0]

    def refuse(*args, **options):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("PIL.Image.open", refuse)
    with pytest.raises(UserError, match="1.png: expected one that can be read, found: Stale file handle"):
        source[1]


def test_many_threads_count_a_file_once(tmp_path, capsys):
    many(tmp_path, "a", 4)
    broken(tmp_path, "train/a/0.png", "train/a/1.png")
    source = data.load(settings(tmp_path, skip_broken=2))
    threads = [threading.Thread(target=source.__getitem__, args=(i % 2,)) for i in range(20)]
    for step in ("start", "join"):
        for thread in threads:
            getattr(thread, step)()
    assert capsys.readouterr().out.count("skipped") == 2


@pytest.mark.parametrize("source", ("digits", "emoji", "tfds"))
def test_only_files_of_folders_are_skipped(source):
    with pytest.raises(UserError, match=f"data.skip_broken: expected 0 for {source}, .* found 3"):
        data.load(config.images(source, 16, 3, 0, skip_broken=3))


# ---- --check-data ------------------------------------------------------------------------------------------


def sources_of(root, **changes):
    return [data.load(settings(root, **changes), split) for split in ("train", "test")]


def test_checking_names_every_broken_file(tmp_path, capsys):
    many(tmp_path)
    checking.check(sources_of(tmp_path))
    assert capsys.readouterr().out == "42 images checked, none broken\n"
    broken(tmp_path, "train/a/10.png", "train/a/9.png", "val/b/0.png")
    with pytest.raises(UserError) as caught:
        checking.check(sources_of(tmp_path))
    text = str(caught.value)
    assert (
        "found 3 of 42 images that cannot be read: train/a/9.png, train/a/10.png, val/b/0.png; the first: "
        in text
    )
    assert (
        f"image {tmp_path}/train/a/9.png: expected a whole image, found a broken one" in text
        and "\n" not in text
    )
    broken(tmp_path, *(f"train/b/{i}.png" for i in range(12)))
    with pytest.raises(UserError, match=r"found 15 of 42 .*train/b/7.png and 5 more; the first"):
        checking.check(sources_of(tmp_path))


def test_checking_allows_what_may_be_skipped(tmp_path, capsys):
    many(tmp_path)
    broken(tmp_path, "train/a/10.png", "val/b/0.png")
    checking.check(sources_of(tmp_path, skip_broken=2))
    said = capsys.readouterr().out
    assert said.count("skipped") == 2 and said.endswith("42 images checked, 2 broken\n")
    with pytest.raises(UserError, match="found 2 of 42"):
        checking.check(sources_of(tmp_path, skip_broken=1))
    (tmp_path / "train" / "a" / "0.png").unlink()
    sources = sources_of(tmp_path, skip_broken=9)
    sources[0].files[0].unlink()
    with pytest.raises(UserError, match="found 3 of 41 .*the first: .*1.png: expected a file, found none"):
        checking.check(sources)  # what is gone isn't skipped


def test_checking_what_is_in_memory(capsys):
    checking.check([data.load(config.digits())])
    assert capsys.readouterr().out == "0 images checked, none broken\n"


def test_fingerprints_know_the_reader(tmp_path, monkeypatch):
    """Codes of pictures that are read as other pixels now are made anew."""
    pictures(tmp_path, "a/0.png", "a/1.png")
    before = data.load(settings(tmp_path)).fingerprint()
    assert data.load(settings(tmp_path, skip_broken=3)).fingerprint() == before
    monkeypatch.setattr(image_file, "VERSION", image_file.VERSION + 1)
    assert data.load(settings(tmp_path)).fingerprint() != before
