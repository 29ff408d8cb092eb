"""Captioned pictures through all commands, at a tiny size; and, slow, trained until both ways are learnt."""

import json
import pathlib
import re

import numpy as np
import pytest
from commands import ROOT, tiny
from PIL import Image

import vargen
from vargen import data
from vargen.cli import main
from vargen.errors import UserError

CONFIG = ROOT / "configs" / "orthus.py"
DIGITS = ("--config.data.source=digits", "--config.data.num_classes=0")
pytestmark = pytest.mark.slow


def run(*arguments):
    assert main.main([str(a) for a in arguments]) == 0


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    where = tmp_path_factory.mktemp("captions") / "w"
    run("train", "--config", CONFIG, "--workdir", where, *tiny("orthus"))
    return where


def test_all_commands(workdir, tmp_path, capsys):
    rows = [json.loads(line) for line in (workdir / "generator" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 4
    assert all(np.isfinite(rows[-1][key]) for key in ("text_loss", "picture_loss", "validation_loss"))

    texts = ["a red circle at the top", "a blue cross at the left and a green square at the right"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    run(
        "sample",
        "--workdir",
        workdir,
        "--captions",
        tmp_path / "texts.txt",
        "--count",
        2,
        "--out",
        tmp_path / "o",
    )
    names = sorted(p.name for p in (tmp_path / "o").iterdir())
    assert names == sorted(f"{text}-{i:03d}.png" for text in texts for i in range(2))
    with Image.open(tmp_path / "o" / names[0]) as image:
        assert image.size == (24, 24)

    capsys.readouterr()
    run("caption", "--workdir", workdir, "--count", 3)
    lines = capsys.readouterr().out.splitlines()
    test = data.load(vargen.load(workdir).config.data, "test")
    theirs = [test.captions[i] for i in data.evenly(test, 3)]
    assert [re.fullmatch(r"\d{4}  .*\(its caption: (.*)\)", line).group(1) for line in lines] == theirs
    run("caption", "--workdir", workdir, "--input", tmp_path / "o", "--count", 2)
    assert len(capsys.readouterr().out.splitlines()) == 2

    run("evaluate", "--workdir", workdir, "--out", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {"pictures_right", "words_right", "real_right", "words_parsable"} <= set(metrics)
    assert metrics["samples"] == 8 and (tmp_path / "samples.png").is_file()


def test_from_python(workdir):
    model = vargen.load(workdir)
    caption = "a red circle at the top"
    drawn = model.sample([caption, None], 0)
    assert drawn.shape == (2, 24, 24, 3)
    # Guidance 1 is none: the picture of the caption alone.
    content, order = model.generate([caption, caption], 3, guidance=1.0)
    np.testing.assert_array_equal(order.slots, np.arange(9))
    assert order.steps.tolist() == list(range(9))
    assert not np.allclose(content, model.generate([caption, caption], 3, guidance=2.0)[0], atol=1e-4)
    # A picture whose first rows are kept, under a caption.
    kept = np.zeros((24, 24), bool)
    kept[:8] = True
    images = np.clip(np.asarray(drawn), -1, 1)
    assert model.complete(images, kept, [caption, caption], 0).shape == images.shape
    texts = model.describe(images)
    assert len(texts) == 2 and all(isinstance(text, str) for text in texts)
    with pytest.raises(UserError, match="unknown word 'dog'"):
        model.sample(["a dog"], 0)


def test_mistakes(workdir, capsys, tmp_path, trained):
    capsys.readouterr()
    for command, words in (
        (
            ["sample", "--workdir", workdir, "--out", tmp_path / "x"],
            "Orthus: expected --captions, found none",
        ),
        (
            ["sample", "--workdir", workdir, "--captions", "a dog", "--out", tmp_path / "x"],
            "unknown word 'dog'",
        ),
        (
            ["sample", "--workdir", workdir, "--captions", tmp_path / "no.txt", "--out", tmp_path / "x"],
            "no.txt: expected",
        ),
        (["caption", "--workdir", trained.workdir], "captions: expected a generator that writes words"),
        (
            ["train", "--config", CONFIG, "--workdir", tmp_path / "y", *tiny("orthus"), *DIGITS],
            "which has no captions, found texts",
        ),
    ):
        assert main.main([str(a) for a in command]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_learns_both_ways(tmp_path):
    """Minutes: pictures show what words ask for, and words say what pictures show, far above chance."""
    run("train", "--config", CONFIG, "--workdir", tmp_path / "w")
    run("evaluate", "--workdir", tmp_path / "w", "--out", tmp_path, "--samples", 200)
    metrics = json.loads(pathlib.Path(tmp_path / "metrics.json").read_text())
    for way in ("pictures", "words"):
        assert metrics[f"{way}_place"] > metrics[f"{way}_chance_place"] + 0.3
