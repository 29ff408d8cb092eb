"""Folders as people have them: pipes, links, foreign names, pictures of any claimed size; here and in a bucket."""

import errno
import io
import json
import os
import socket
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from vargen import config, data, paths
from vargen.cli import reconstruct
from vargen.data import folder
from vargen.errors import UserError

SETTINGS = config.images("folder", 8, 3, 0)


def settings(path, **changes):
    return config.images("folder", 8, 3, 0, path=os.fspath(path), **changes)


def picture(file, size=(4, 4)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 8, 7)).save(os.fspath(file), "png")
    return file


def pictures(root, *names):
    for name in names:
        picture(root / name)
    return root


def claiming(width, height, kind="png"):
    """The first bytes of a picture, which say its size."""
    if kind == "png":
        head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        first = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        return b"\x89PNG\r\n\x1a\n" + first + struct.pack(">I", 9) + b"IDAT"
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


ODD = dict(
    fifo=lambda file: os.mkfifo(file),
    socket=lambda file: socket.socket(socket.AF_UNIX).bind(os.path.relpath(file)),
    device=lambda file: file.symlink_to("/dev/zero"),
    pipe_behind_a_link=lambda file: (os.mkfifo(file.with_suffix("")), file.symlink_to(file.with_suffix(""))),
    dead_link=lambda file: file.symlink_to("nowhere"),
    link_to_itself=lambda file: file.symlink_to(file.name),
)


@pytest.mark.parametrize("kind", ODD)
def test_only_plain_files_are_read(tmp_path, kind, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path, "a/0.png", "a/1.png")
    odd = tmp_path / "a" / "odd.png"
    ODD[kind](odd)
    for split in ("train", "test"):
        assert len(data.load(settings(tmp_path), split)) == 1
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "1 that are no plain files passed over" in said and odd.name in said
    assert len(reconstruct.read_images([os.fspath(tmp_path)], 9, SETTINGS)) == 2
    with pytest.raises(UserError, match="odd.png: expected a file, found n"):
        reconstruct.read_images([os.fspath(odd)], 9, SETTINGS)
    with pytest.raises(UserError, match="odd.png: expected a file, found n"):
        folder.read_image(odd, 3)


def test_nothing_but_pipes(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "0.png")
    with pytest.raises(UserError, match="a: expected images.*found 1 that are no plain files"):
        data.load(settings(tmp_path))


def test_what_is_no_picture(tmp_path):
    """Hidden names, what other systems leave, and folders called as pictures are."""
    pictures(tmp_path, "a/0.png", "a/1.PNG", "a/deep/er/2.JPG", "a/album.png/3.png")
    pictures(tmp_path, "a/.4.png", "a/._5.png", "a/.git/6.png", "a/__MACOSX/7.png", "a/@eaDir/8.png")
    pictures(tmp_path, ".hidden/9.png", "__MACOSX/9.png", "@eaDir/9.png", "loose.png")
    (tmp_path / "a" / "notes.txt").write_text("not one")
    source = data.load(settings(tmp_path))
    assert source.classes == ["a"]
    found = [file.name for split in ("train", "test") for file in data.load(settings(tmp_path), split).files]
    assert sorted(found) == ["0.png", "1.PNG", "2.JPG", "3.png"]


def test_links_are_followed_into_no_folder_twice(tmp_path):
    """Ten folders with links to each other are some millions of ways, and ten pictures."""
    root, elsewhere = tmp_path / "root", pictures(tmp_path / "elsewhere", "0.png", "1.png")
    for i in range(10):
        picture(root / "a" / str(i) / f"{i}.png")
        for j in range(10):
            (root / "a" / str(i) / f"to{j}").symlink_to(f"../{j}")
    (root / "b").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(elsewhere)
    assert len(folder.pictures_in(paths.path(root / "a"))) == 10
    train, test = (data.load(settings(root), split) for split in ("train", "test"))
    assert train.classes == ["a", "b"] and len(train) + len(test) == 12


def test_deep_folders(tmp_path):
    deep = tmp_path / "a"
    for _ in range(sys.getrecursionlimit() + 100):
        deep.mkdir()
        deep = deep / "d"
    try:
        pictures(deep, "0.png", "1.png")
        assert len(data.load(settings(tmp_path))) == 1
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "a"], check=True)  # for which Python isn't deep enough


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
    assert train.classes == sorted(NAMES) and json.loads(json.dumps(train.classes)) == train.classes
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


TOO_LARGE = {
    "13001x13000.png": (claiming(13001, 13000), "100 megapixels.*found 13001 x 13000"),
    "2000000000x9.png": (claiming(2_000_000_000, 9), "found 2000000000 x 9"),
    "1x70000.png": (claiming(1, 70_000), "65535 pixels a side, found 1 x 70000"),
    "60000x60000.jpg": (claiming(60_000, 60_000, "jpeg"), "400 megapixels.*found 60000 x 60000"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_pictures_too_large_are_refused_by_their_header(tmp_path, name):
    content, message = TOO_LARGE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: expected at most .*{message}"):
        folder.read_image(tmp_path / name, 3, 8)


def test_a_jpeg_is_refused_at_the_scale_at_which_it_is_read(tmp_path):
    """Of 169 megapixels; as many as that are read for small images only."""
    file = tmp_path / "large.jpg"
    file.write_bytes(claiming(13_000, 13_000, "jpeg"))
    assert folder.read_image(file, 3, 8).shape == (1625, 1625, 3)
    with pytest.raises(UserError, match="at most 100 megapixels.*found 13000 x 13000"):
        folder.read_image(file, 3)


def test_large_pictures_below_the_limit_are_read(tmp_path):
    file = tmp_path / "large.png"
    Image.new("1", (9600, 9600)).save(file)  # of which Pillow would warn
    assert folder.read_image(file, 1, 8).shape == (9600, 9600, 1)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "expected a whole image, found a broken one"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "found PostScript"),
        (claiming(8, 8), "expected a whole image, found a broken one"),
        (claiming(8, 8, "jpeg")[:-20], "expected a whole image, found a broken one"),
        (bytes(1000), "expected a whole image, found a broken one"),
    ],
)
def test_no_pictures_inside(tmp_path, content, message):
    (tmp_path / "0.png").write_bytes(content)
    with pytest.raises(UserError, match=f"0.png: .*{message}"):
        folder.read_image(tmp_path / "0.png", 3)


def test_sixteen_bits_become_eight(tmp_path):
    levels = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "0.png")
    expected = np.array([[0, 0, 1], [128, 254, 255]])
    for channels in (1, 3):
        found = folder.read_image(tmp_path / "0.png", channels)
        assert (found == expected[..., None]).all() and found.shape == (2, 3, channels)


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
        ("a", "a: expected subfolders of images, one per class, found none"),
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


@pytest.mark.parametrize("fraction, held", [(1e-9, 2), (0.999999, 6)])
def test_extreme_fractions_leave_each_class_on_both_sides(tmp_path, fraction, held):
    pictures(tmp_path, *(f"{name}/{i}.png" for name in "ab" for i in range(4)))
    train, test = (
        data.load(settings(tmp_path, test_fraction=fraction), split) for split in ("train", "test")
    )
    assert len(test) == held and len(train) == 8 - held and set(train.labels) == set(test.labels) == {0, 1}


@pytest.mark.parametrize("fraction", (0, 1, -0.1, float("nan"), "0.1", True))
def test_fractions_that_are_none(tmp_path, fraction):
    pictures(tmp_path, "a/0.png", "a/1.png")
    with pytest.raises(UserError, match="data.test_fraction: expected a number"):
        data.load(dict(SETTINGS, path=os.fspath(tmp_path), test_fraction=fraction))


def test_one_image_a_class_leaves_nothing_to_hold_out(tmp_path):
    pictures(tmp_path, "a/0.png", "b/0.png")
    assert len(data.load(settings(tmp_path))) == 2
    with pytest.raises(UserError, match="expected two images of a class.*test split, found none"):
        data.load(settings(tmp_path), "test")


def test_a_training_folder_alone(tmp_path):
    """Its subfolders are the classes, not `train` itself."""
    pictures(tmp_path, *(f"train/{name}/{i}.png" for name in "ab" for i in range(3)))
    train, test = (data.load(settings(tmp_path), split) for split in ("train", "test"))
    assert train.classes == ["a", "b"] and (len(train), len(test)) == (4, 2)


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
        buffer = io.BytesIO()
        Image.new("RGB", (9, 6), (200, 1, 1)).save(buffer, "png")
        root = paths.path("gs://pictures/all")
        for name in ("a/0.png", "a/1.png", "猫/deep/0.PNG", "猫/1.png", "猫/.hidden/2.png", "猫/2.txt"):
            (root / name).write_bytes(buffer.getvalue())
        train, test = (data.load(settings(root), split) for split in ("train", "test"))
        assert train.classes == ["a", "猫"] and (len(train), len(test)) == (2, 2)
        assert train[0]["image"].shape == (6, 9, 3) and (train[0]["image"][0, 0] == (200, 1, 1)).all()
        before = train.fingerprint()
        train.files[0].write_bytes(buffer.getvalue() + b"0")
        gcsfs.GCSFileSystem.clear_instance_cache()
        assert data.load(settings(root)).fingerprint() != before
        for path, message in (
            ("none", "no such folder"),
            ("all/a/0.png", "a file"),
            ("all/a", "expected subfolders"),
        ):
            with pytest.raises(UserError, match=message):
                data.load(settings(f"gs://pictures/{path}"))
    finally:
        server.stop()
