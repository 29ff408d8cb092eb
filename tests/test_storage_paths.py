"""Paths that users name, and files that appear whole or not at all."""

import os
import pathlib
import subprocess
import sys

import pytest

from vargen import paths
from vargen.errors import UserError


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "--out: expected a path, found ''"),
        ("  ", "expected a path"),
        ("a\0b", "zero byte"),
        ("~nosuchuser/x", "the home of no user"),
        ("gs:/bucket/x", "gs:// or s3://"),
        ("http://host/x", "gs:// or s3://"),
        ("gs://", "expected gs://BUCKET"),
        (None, "expected a path, found None"),
        (3, "expected a path, found 3"),
    ],
)
def test_no_paths(text, words):
    with pytest.raises(UserError, match="--out: ") as caught:
        paths.path(text, "--out")
    assert words in str(caught.value)


def test_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert os.fspath(paths.path("~/x")) == str(tmp_path / "x")
    odd = tmp_path / "a:" / "b"
    odd.mkdir(parents=True)
    assert paths.path(str(odd)).is_dir()
    os.mkfifo(tmp_path / "pipe")
    assert not paths.is_file(tmp_path / "pipe") and not paths.is_file(tmp_path)


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    paths.write_text(tmp_path / "f", "one")
    with pytest.raises(KeyError), paths.replacing(tmp_path / "f") as file:
        file.write_text("half")
        raise KeyError
    with paths.new_directory(tmp_path / "d") as folder:
        (folder / "x").write_text("old")
    with pytest.raises(KeyError), paths.new_directory(tmp_path / "d") as folder:
        (folder / "y").write_text("half")
        raise KeyError
    assert (tmp_path / "f").read_text() == "one" and (tmp_path / "d" / "x").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["d", "f"]


def test_a_directory_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    with paths.new_directory(tmp_path / "d") as folder:
        (folder / "x").write_text("old")
    rename = os.rename

    def failing(old, new):
        if "@" in os.fspath(old) and not os.fspath(old).endswith("-old.partial"):
            raise OSError(5, "Input/output error", os.fspath(old))
        rename(old, new)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="Input/output error") as caught, paths.new_directory(tmp_path / "d"):
        pass
    assert caught.value.filename == str(tmp_path / "d")
    assert (tmp_path / "d" / "x").read_text() == "old" and os.listdir(tmp_path) == ["d"]


def test_sweeping(tmp_path):
    """What the dead left goes, what a death took away comes back, what others write stays."""
    host, dead, alive = paths._host(), 2**22 + 7, os.getpid()
    gone = [f".a@{host}-{dead}-0123abcd.partial", f".b@{host}-{dead}-0123abcd-old.partial"]
    stays = [f".a@{host}-{alive}-0123abcd.partial", f".a@elsewhere-{dead}-0123abcd.partial", ".hidden"]
    odd = [f".a@{host}-\u00b2-0.partial", f".a@{host}-{'9' * 30}-0.partial"]
    for name in (*gone, *stays, *odd, "b", f".c@{host}-{dead}-0123abcd-old.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / f".c@{host}-{dead}-0123abcd-old.partial" / "x").write_text("old")
    paths.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*stays, "b", "c"])
    assert (tmp_path / "c" / "x").read_text() == "old"


def test_names_in_errors(tmp_path):
    with pytest.raises(OSError) as caught, paths.replacing(tmp_path / "f"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "f")
    assert not list(pathlib.Path(tmp_path).iterdir())


@pytest.mark.parametrize("utf8", ["0", "1"])
def test_names_are_the_same_text_in_every_locale(utf8):
    code = "import sys; from vargen import paths; print(ascii([paths.text(x) for x in sys.argv[1:]]))"
    environment = dict(os.environ, LC_ALL="C", PYTHONUTF8=utf8, PYTHONCOERCECLOCALE="0")
    names = ["日没".encode(), b"caf\xe9", b"plain"]
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == ascii(["日没", "caf\udce9", "plain"]), done.stderr
    assert paths.text("日没") == "日没"


def test_a_directory_is_checked_and_left_as_it_was(tmp_path):
    (tmp_path / "file").touch()
    paths.check_directory(tmp_path)
    paths.check_directory(tmp_path / "a" / "b")
    for name in ("file", "file/x", "n" * 300, "a/" + "n" * 300):
        with pytest.raises(OSError) as caught:
            paths.check_directory(tmp_path / name)
        assert os.fspath(tmp_path) in str(caught.value.filename)
    with pytest.raises(OSError):
        paths.check_directory("/proc/nowhere")
    assert os.listdir(tmp_path) == ["file"]
