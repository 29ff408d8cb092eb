"""What is a picture and what isn't, in which order, and what is said of the rest."""

import collections
import itertools
import os
import random
import socket
import subprocess
import sys

import pytest
from picture_files import picture, pictures, settings
from PIL import Image

from vargen import config, data, paths
from vargen.cli import reconstruct
from vargen.data import listing
from vargen.data.image_file import read_image
from vargen.errors import UserError

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
    assert said.count("\n") == 1 and f"folder {tmp_path}: " in said and "no plain file (" in said
    assert f"{tmp_path / 'a'}/odd" in said
    assert len(reconstruct.read_images([os.fspath(tmp_path)], 9, settings(""))[0]) == 2
    with pytest.raises(UserError, match="odd.png: expected a file, found n"):
        reconstruct.read_images([os.fspath(odd)], 9, settings(""))
    with pytest.raises(UserError, match="odd.png: expected a file, found n"):
        read_image(odd, 3)


@pytest.mark.parametrize(
    "names", [("a/0.png", "a/1.png", "b/0.png", "b/1.png"), ("train/a/0.png", "test/a/1.png")]
)
def test_a_folder_is_listed_once_for_both_splits(tmp_path, monkeypatch, names):
    """Whoever wants to know of files that came meanwhile opens it anew."""
    pictures(tmp_path, *names)
    listed, items = [], listing._items
    monkeypatch.setattr(listing, "_items", lambda folder: (listed.append(folder), items(folder))[1])
    both = data.Sources(settings(tmp_path))
    before = [both[split].files for split in ("train", "test", "train")]
    assert both["train"] is both["train"] and not set(before[0]) & set(before[1])
    assert sorted(before[0] + before[1]) == [tmp_path / name for name in sorted(names)]
    # Of a folder of held-out pictures it was asked before whether there are some.
    counts = collections.Counter(listed)
    assert {folder for folder, count in counts.items() if count > 1} <= {tmp_path / "test" / "a"}
    picture(tmp_path / names[0].replace("0.png", "2.png"))
    assert [both[split].files for split in ("train", "test", "train")] == before
    assert sum(len(data.load(settings(tmp_path), split)) for split in ("train", "test")) == len(names) + 1


def test_nothing_but_pipes(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "0.png")
    with pytest.raises(UserError, match=r"a: expected images \(.*\), found 1 no plain file \('.*/a/0.png'\)"):
        data.load(settings(tmp_path))


def test_what_is_no_picture(tmp_path, capsys):
    """Hidden names, what other systems leave, and folders called as pictures are; counted by kind, and said once."""
    pictures(tmp_path, "a/0.png", "a/1.PNG", "a/deep/er/2.JPG", "a/album.png/3.png")
    pictures(
        tmp_path, "a/.4.png", "a/._5.png", "a/.ipynb_checkpoints/6.png", "a/__MACOSX/7.png", "a/@eaDir/8.png"
    )
    pictures(tmp_path, ".hidden/9.png", "__MACOSX/9.png", "loose.png", "a/deep/.x/y/z.png")
    for name in ("a/notes.txt", "a/deep/more.TXT", "labels.csv", "a/Thumbs.db", "a/LICENSE", "a/x.heic"):
        (tmp_path / name).write_text("not one")
    (tmp_path / "a" / "empty.png").mkdir()
    source = data.load(settings(tmp_path))
    assert source.classes == ["a"]
    found = [file.name for split in ("train", "test") for file in data.load(settings(tmp_path), split).files]
    assert sorted(found) == ["0.png", "1.PNG", "2.JPG", "3.png"]
    kinds = "8 hidden, 2 .txt, 1 .csv, 1 .db, 1 .heic, 1 of no known kind, 1 of other kinds"
    assert capsys.readouterr().out == f"folder {tmp_path}: 15 passed over: {kinds}\n"


@pytest.mark.parametrize("name", [*listing.NO_PICTURES, "__MACOSX", "@Recently-Snapshot", "LOST+FOUND"])
def test_what_systems_leave_is_neither_a_class_nor_a_picture(tmp_path, name, capsys):
    """In any case, beside classes and in them."""
    for leavings in (name, name.upper(), f"a/{name.title()}"):
        pictures(tmp_path, "a/0.png", "a/1.png", f"{leavings}/0.png", f"{leavings}/sub/1.png")
    train, test = (data.load(settings(tmp_path), split) for split in ("train", "test"))
    assert train.classes == ["a"] and len(train) + len(test) == 2
    assert capsys.readouterr().out.endswith(f" passed over: {2 + (name != name.upper())} hidden\n")


def test_names_that_only_resemble_what_systems_leave(tmp_path):
    names = ["#1", "$100", "@home", "lost", "recycle", "snapshot", "thumb"]
    pictures(tmp_path, *(f"{name}/{i}.png" for name in names for i in range(2)))
    assert data.load(settings(tmp_path)).classes == names


@pytest.mark.parametrize("name", ("a.bmp", "a.gif", "a.tif", "a.tiff", "a.jfif", "a.JPEG", "a.WebP"))
def test_every_suffix(tmp_path, name):
    kind = "JPEG" if name.endswith("jfif") else None
    for i in range(2):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (200, 100 * i, 0)).save(tmp_path / "a" / f"{i}{name}", kind)
    images = [data.load(settings(tmp_path), split)[0]["image"] for split in ("train", "test")]
    assert sorted(round(int(x[..., 1].mean()) / 50) for x in images) == [0, 2]


def test_odd_names_are_said_on_a_line(tmp_path, capsys):
    pictures(tmp_path, "a/0.png", "a/1.png")
    for name in ("x.a\nb", "x." + "y" * 99, "x.\x1b[31m", "caf\udce9.txt"):
        (tmp_path / "a" / name).touch()
    data.load(settings(tmp_path))
    said = capsys.readouterr().out
    assert said == f"folder {tmp_path}: 4 passed over: 3 of no known kind, 1 .txt\n"


def test_links_are_followed_into_no_folder_twice(tmp_path, capsys):
    """Ten folders with links to each other are some millions of ways, and ten pictures, by their own names."""
    root, elsewhere = tmp_path / "root", pictures(tmp_path / "elsewhere", "0.png", "1.png")
    for i in range(10):
        picture(root / "a" / str(i) / f"{i}.png")
        for j in range(10):
            (root / "a" / str(i) / f"to{j}").symlink_to(f"../{j}")
    (root / "b").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(elsewhere)
    found = listing.pictures_in(paths.path(root / "a"))
    assert [f.relative_to(root / "a").as_posix() for f in found] == [f"{i}/{i}.png" for i in range(10)]
    train, test = (data.load(settings(root), split) for split in ("train", "test"))
    assert train.classes == ["a", "b"] and len(train) + len(test) == 12
    assert capsys.readouterr().out == f"folder {root}: 101 passed over: 101 linked twice\n"


def test_links_upwards_bring_no_other_classes_pictures(tmp_path, capsys):
    root = pictures(tmp_path / "root", "a/0.png", "a/1.png", "b/0.png", "b/1.png")
    (root / "a" / "up").symlink_to("..")
    (root / "b" / "deep").mkdir()
    (root / "b" / "deep" / "far").symlink_to(tmp_path)
    (root / "c").symlink_to(".")
    (root / "d").symlink_to(root)
    pictures(tmp_path / "elsewhere", "0.png", "1.png")
    (root / "e").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    train, test = (data.load(settings(root), split) for split in ("train", "test"))
    assert train.classes == ["a", "b", "e"] and len(train) + len(test) == 6
    assert capsys.readouterr().out == f"folder {root}: 5 passed over: 5 linked upwards\n"
    assert len(listing.pictures_in(paths.path(root / "a"))) == 2


def test_a_link_does_not_rename_what_is_there(tmp_path):
    """Whether it sorts before or after the folder that it leads to."""
    root = pictures(tmp_path, "a/m/0.png", "a/m/1.png")
    for name in ("a", "z"):
        (root / "a" / name).symlink_to("m")
    found = listing.pictures_in(paths.path(root / "a"))
    assert [f.relative_to(root).as_posix() for f in found] == ["a/m/0.png", "a/m/1.png"]


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


NATURAL = [
    "1",
    "2",
    "2b",
    "10",
    "011",
    "11",
    "A1",
    "a1",
    "A2",
    "a3b",
    "a20",
    "b",
    "B1",
    "c9/x",
    "c10",
    "Zoo",
    "猫",
]


def test_natural_order():
    for seed in range(5):
        shuffled = random.Random(seed).sample(NATURAL, len(NATURAL))
        assert sorted(shuffled, key=listing.natural) == NATURAL
    for a, b in itertools.combinations(
        ["", "0", "00", "a", "A", "9" * 250, "²", "١", "caf\udce9", "-1", "a\0"], 2
    ):
        assert (listing.natural(a) < listing.natural(b)) != (listing.natural(b) < listing.natural(a))


def test_classes_and_files_in_natural_order(tmp_path):
    names = ["1", "2", "10", "class 3", "class 20", "Dog", "emu"]
    pictures(tmp_path, *(f"{name}/img{i}.png" for name in names for i in (1, 2, 10, 9, 100)))
    train, test = (data.load(settings(tmp_path), split) for split in ("train", "test"))
    assert train.classes == test.classes == names
    for source in (train, test):
        assert (source.labels[1:] >= source.labels[:-1]).all()
        for label in range(len(names)):
            numbers = [int(f.stem[3:]) for f, x in zip(source.files, source.labels) if x == label]
            assert numbers == sorted(numbers) and numbers


def test_files_and_folders_to_reconstruct(tmp_path, capsys):
    """One reader for all: of folders the pictures in natural order, of files whatever they are called; each once."""
    pictures(tmp_path / "in", "10.png", "9.png", "sub/1.gif", ".8.png", "x.txt")
    named = picture(tmp_path / ".hidden.dat")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "phone.jpg", exif=exif)
    given = [
        os.fspath(p) for p in (tmp_path / "in", named, tmp_path / "phone.jpg", tmp_path / "in" / "9.png")
    ]
    found, folders = reconstruct.read_images(given, 99, config.images("folder", 4, 3, 0))
    names = ("9.png", "10.png", "sub/1.gif")
    expected = [Image.open(tmp_path / "in" / name).getpixel((0, 0)) for name in names]
    expected += [Image.open(named).getpixel((0, 0)), (254, 0, 0)]
    assert [tuple(image[0, 0].tolist()) for image in found] == expected
    assert list(folders.values()) == [["in"], ["in"], ["sub", "in"], [tmp_path.name], [tmp_path.name]]
    assert capsys.readouterr().out == f"folder {tmp_path / 'in'}: 2 passed over: 1 .txt, 1 hidden\n"
    assert len(reconstruct.read_images(given, 2, config.images("folder", 4, 3, 0))[0]) == 2
