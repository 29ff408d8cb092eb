"""`python -m vargen.interop.check` exits 0 only if everything that a golden holds was compared and holds."""

import os
import pathlib

import numpy as np
import pytest

from vargen.interop import check

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "llamagen_gpt_gqa.npz"


def drop(prefix):
    return lambda arrays: {k: v for k, v in arrays.items() if not k.startswith(prefix)}


def change(name, function):
    def damaged(arrays):
        key = next(k for k in arrays if k.startswith(name))
        return dict(arrays, **{key: function(arrays[key])})

    return damaged


# What is done to a golden, the exit code, and what the line must name.
DAMAGE = {
    "no meta": (drop("meta"), 2, "expected meta"),
    "meta is no JSON": (lambda a: dict(a, meta="{"), 2, "meta"),
    "meta is a list": (lambda a: dict(a, meta="[1]"), 2, "expected meta"),
    "no inputs": (drop("in/"), 2, ""),
    "no outputs": (drop("out/"), 2, "expected outputs to compare, found none"),
    "no weights": (drop("sd/"), 2, ""),
    "another output": (lambda a: dict(a, **{"out/unheard_of": np.zeros(3)}), 2, "not compared: out/unheard_of"),
    "another input": (lambda a: dict(a, **{"in/more": np.zeros(3)}), 2, "not compared: in/more"),
    "an array that nothing reads": (lambda a: dict(a, foo=np.zeros(3)), 2, "not compared: foo"),
    "an empty output": (lambda a: dict(a, **{"out/more": np.zeros(0)}), 2, "expected numbers in out/more"),
    "another weight": (lambda a: dict(a, **{"sd/more.weight": np.zeros(3, np.float32)}), 2, "more.weight"),
    "a weight is NaN": (change("sd/", lambda x: x * np.float32(np.nan)), 1, "DIFFERS"),
    "a weight is flat": (change("sd/output.weight", np.ravel), 2, "output.weight"),
    "a weight is text": (change("sd/output.weight", lambda x: x.astype("U8")), 2, "numbers in sd/output"),
    "an input is flat": (change("in/", np.ravel), 2, ""),
    "an output is NaN": (change("out/", lambda x: np.full(x.shape, np.nan)), 1, "DIFFERS"),
    "an output is flat": (change("out/", np.ravel), 1, "DIFFERS"),
    "an output is off": (change("out/rec", lambda x: x + 1), 1, "DIFFERS"),
}  # fmt: skip


@pytest.fixture(scope="module")
def arrays():
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage(name, arrays, tmp_path, capsys):
    damage, code, words = DAMAGE[name]
    if name == "an output is off" and not any(k.startswith("out/rec") for k in arrays):
        damage = change("out/", lambda x: x + 1)
    path = tmp_path / "golden.npz"
    np.savez(path, **damage(arrays))
    assert check.main([str(path)]) == code
    captured = capsys.readouterr()
    assert words in captured.out + captured.err
    assert "Traceback" not in captured.err
    if code == 2:
        assert captured.err.count("\n") == 1, captured.err


def test_no_files(tmp_path, capsys):
    (tmp_path / "cut.npz").write_bytes(GOLDEN.read_bytes()[:5000])
    os.mkfifo(tmp_path / "pipe.npz")
    for name, words in (
        ("cut.npz", "npz"),
        ("pipe.npz", "no plain file"),
        ("", "a directory"),
        ("none", "none"),
    ):
        assert check.main([str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err


def test_one_bad_file_among_good_ones(arrays, tmp_path):
    np.savez(tmp_path / "bad.npz", **drop("in/")(arrays))
    assert check.main([str(GOLDEN), str(tmp_path / "bad.npz")]) == 2


def test_files_that_are_no_goldens(tmp_path, capsys):
    text, other = tmp_path / "text.npz", tmp_path / "other.npz"
    text.write_text("hello")
    np.savez(other, a=np.zeros(3), meta='{"a": 1}')
    assert check.main([str(text)]) == 2 and check.main([str(other)]) == 2 and check.main([]) == 2
    error = capsys.readouterr().err
    assert "expected an .npz" in error and "found none of their arrays" in error and "usage" in error
