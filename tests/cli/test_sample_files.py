"""The folder of samples: names of files, settings in PNGs, what may lie there already."""

import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from vargen import paths
from vargen.cli import sample_files
from vargen.errors import UserError
from vargen.report import pictures

PIXELS = np.zeros((4, 4, 3), np.uint8)
SETTINGS = dict(
    model="VAR",
    workdir="runs/x",
    steps=[4, 4],
    labels="0-2,7",
    count=3,
    batch_size=8,
    seed=2**64 - 1,
    resize=0,
    index=11,
    sampling=dict(guidance=2.0),
)


def test_names_of_files():
    names = {0: "cat", 1: "a/b", 2: "Cat", 3: "golden, retriever", 4: "犬", 5: "...", 6: "x" * 300, 7: "a\0b"}
    assert sample_files.stems(names) == {
        0: "cat_0",  # one name to a disk that doesn't tell large letters from small ones
        1: "a_b_1",
        2: "Cat_2",
        3: "golden, retriever",
        4: "犬",
        5: "class",
        6: "x" * 80,
        7: "a_b_7",
    }


@pytest.mark.parametrize(
    "names, expected",
    [
        (("Dog", "dog", "dog_1"), ("Dog_0", "dog_1_1", "dog_1_2")),
        (("a:b", "a?b", "a_b_0"), ("a_b_0_0", "a_b_1", "a_b_0_2")),
        (("x", "x_0", "x", "x_0_0"), ("x_0_0_0", "x_0_1", "x_2", "x_0_0_3")),
        (("caf\u00e9", "cafe\u0301"), ("caf\u00e9_0", "cafe\u0301_1")),  # one file on a Mac
        (("CAF\u00c9", "cafe\u0301"), ("CAF\u00c9_0", "cafe\u0301_1")),
        (("x" * 81, "x" * 82), ("x" * 80 + "_0", "x" * 80 + "_1")),
    ],
)
def test_no_two_classes_have_one_file(names, expected):
    found = sample_files.stems(dict(enumerate(names)))
    assert tuple(found.values()) == expected
    assert len({unicodedata.normalize("NFC", stem).casefold() for stem in expected}) == len(names)


def test_where_the_model_of_a_picture_is(tmp_path, monkeypatch, capsys):
    model, picture = (
        tmp_path / "a" / "runs" / "named",
        tmp_path / "a" / "runs" / "named" / "samples" / "1-000.png",
    )
    (model / "tokenizer").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert sample_files.model_of(picture, "runs/named") == "runs/named"
    assert sample_files.model_of("no/picture.png", os.fspath(model)) == os.fspath(
        model
    )  # wherever it was copied to
    assert capsys.readouterr().out == ""
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sample_files.model_of(picture, "runs/named") == os.fspath(model)
    assert capsys.readouterr().out == f"the model of {picture} is taken from {model}\n"
    assert sample_files.model_of(tmp_path / "a" / "pictures" / "1-000.png", "runs/named") == os.fspath(model)
    # Moved, under another name; and of a model that was ".".
    moved = (tmp_path / "a").rename(tmp_path / "b") / "other"
    (tmp_path / "b" / "runs" / "named").rename(moved)
    for stored in ("runs/named", "/gone/runs/named", "."):
        assert sample_files.model_of(moved / "samples" / "1-000.png", stored) == os.fspath(moved)
    with pytest.raises(UserError, match="none; --workdir says where the model is now$"):
        sample_files.model_of(tmp_path / "elsewhere" / "1-000.png", "runs/named")
    assert sample_files.model_of(picture, "hf://me/digits@main") == "hf://me/digits@main"


@pytest.mark.parametrize(
    "numbers, text", [([0, 1, 2, 7], "0-2,7"), ([7, 2, 3, 9], "7,2-3,9"), ([5], "5"), ([1, 0], "1,0")]
)
def test_ranges(numbers, text):
    assert sample_files.ranges(numbers) == text
    assert list(sample_files._from_ranges(text)) == numbers


def test_settings_come_back(tmp_path):
    pictures.save(PIXELS, tmp_path / "a.png", SETTINGS | {"class": "犬"})
    found = sample_files.like(tmp_path / "a.png")
    assert found == dict(
        model="VAR",
        workdir="runs/x",
        weights="full",  # older pictures don't say it
        steps=(4, 4),
        labels=[0, 1, 2, 7],
        count=3,
        batch_size=8,
        seed=2**64 - 1,
        resize=0,
        index=11,
        sampling=dict(guidance=2.0),
    )
    with Image.open(tmp_path / "a.png") as picture:
        assert json.loads(picture.text["vargen"])["class"] == "犬" and "vargen" in picture.text["Software"]
        np.testing.assert_array_equal(np.asarray(picture), PIXELS)


def test_weights_come_back(tmp_path):
    pictures.save(PIXELS, tmp_path / "a.png", SETTINGS | {"class": "x", "weights": "int8"})
    assert sample_files.like(tmp_path / "a.png")["weights"] == "int8"
    pictures.save(PIXELS, tmp_path / "a.png", SETTINGS | {"class": "x", "weights": "int4"})
    with pytest.raises(UserError, match="broken ones .*int4"):
        sample_files.like(tmp_path / "a.png")


def test_levels_come_back(tmp_path):
    levels = (1, 2, (3, 4))
    pictures.save(PIXELS, tmp_path / "a.png", SETTINGS | dict(sampling=dict(guidance=2.0, levels=levels)))
    assert sample_files.like(tmp_path / "a.png")["sampling"]["levels"] == levels


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(count=0), "0 is not from 1"),
        (dict(count=None), "None is not"),
        (dict(batch_size=10**9), "is not from 1 to 1000000"),
        (dict(seed=-1), "-1 is not"),
        (dict(seed=1.5), "1.5 is not"),
        (dict(labels="0-99999999999"), "broken ones"),
        (dict(labels="x"), "broken ones"),
        (dict(labels=3), "broken ones"),
        (dict(index=12), "index"),
        (dict(sampling=dict(guidance="x")), "guidance: expected a number"),
        (dict(sampling=dict(heat=1)), "heat: unknown"),
        (dict(sampling=3), "broken ones"),
        (dict(steps=3), "broken ones"),
    ],
)
def test_broken_settings(tmp_path, change, words):
    pictures.save(PIXELS, tmp_path / "a.png", SETTINGS | change)
    with pytest.raises(UserError) as caught:
        sample_files.like(tmp_path / "a.png")
    text = str(caught.value)
    assert words in text and "a.png" in text and "\n" not in text


def test_pictures_without_settings(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("hello")
    pictures.save(PIXELS, tmp_path / "sheet.png", {k: v for k, v in SETTINGS.items() if k != "count"})
    for name, words in {
        "plain.png": "no settings of vargen",
        "text.png": "no settings of vargen",
        "none.png": "found none",
        "sheet.png": "a sheet",
    }.items():
        with pytest.raises(UserError, match=words):
            sample_files.like(tmp_path / name)


def test_room(tmp_path):
    out = tmp_path / "out"
    sample_files.make_room(out, False)()  # nothing there yet
    out.mkdir()
    (out / ".DS_Store").write_text("")
    for i in range(3):
        pictures.save(PIXELS, out / f"cat-{i}.png", SETTINGS)
    (out / "cat-1.jpg").write_text("what a picture was decoded from")
    with pytest.raises(UserError, match="found 3; --overwrite clears them"):
        sample_files.make_room(out, False)
    clear = sample_files.make_room(out, True)
    assert len(list(out.iterdir())) == 5  # nothing is gone yet
    clear()
    assert [p.name for p in out.iterdir()] == [".DS_Store"]
    for name, write in {
        "notes.txt": lambda p: p.write_text(""),
        "alone.jpg": lambda p: p.write_text(""),
        "mine.png": lambda p: Image.fromarray(PIXELS).save(p),
        "folder.png": lambda p: p.mkdir(),
    }.items():
        write(out / name)
        with pytest.raises(
            UserError, match=f"expected a new folder or one of vargen's pictures alone, found {name}"
        ):
            sample_files.make_room(out, True)
        (out / name).rename(tmp_path / name)


def test_sheets_lie_beside(tmp_path):
    found = sample_files.sheets(paths.path(tmp_path / "out"), ("grid", "steps"))
    assert found == dict(grid=tmp_path / "out_grid.png", steps=tmp_path / "out_steps.png")
    for root in ("/", "gs://bucket"):
        with pytest.raises(UserError, match="expected a folder of its own"):
            sample_files.sheets(paths.path(root) if root == "/" else paths.epath.Path(root), ["grid"])
