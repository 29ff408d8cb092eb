"""`vargen evaluate --tokenizer-only`: its numbers against another way to them."""

import json
import math
import sys
import types

import in_parquet
import jax
import numpy as np
import pytest
from PIL import Image

import vargen
from vargen import data
from vargen.cli import evaluate_tokenizer, main
from vargen.evaluation import detail, metrics, probe


def test_numbers_of_a_tokenizer(trained, tmp_path, capsys):
    assert (
        main.main(["evaluate", "--workdir", str(trained.workdir), "--tokenizer-only", "--out", str(tmp_path)])
        == 0
    )
    found = json.loads((tmp_path / "tokenizer.json").read_text())
    model = vargen.load(trained.workdir)
    images = data.to_float(data.arrays(data.load(model.config.data, "test"), 10_000)[0])
    decoded = np.concatenate([model.reconstruct(images[i : i + 60]) for i in range(0, len(images), 60)])
    assert found["psnr_db"] == pytest.approx(np.mean(metrics.psnr(images, decoded)), rel=1e-5)
    one_scale = np.maximum(metrics.ssim(images, decoded), 0)  # of 16 pixels
    assert found["ms_ssim"] == pytest.approx(np.mean(one_scale), rel=1e-5)
    slots = model.tokenizer.grid.size
    assert found["bits_per_pixel"] == pytest.approx(slots * math.log2(model.tokenizer.vocab) / 256)
    assert 0.3 < found["linear_probe"] <= 1  # of ten classes, after a tiny training
    assert found["encoder_parameters"] > 100 and found["decode_seconds"] > 0
    assert not {"label_accuracy", "bits_per_code", "lpips", "rfid"} & set(found)
    with Image.open(tmp_path / "reconstructions.png") as sheet:
        assert sheet.width > 100
    printed = capsys.readouterr().out
    assert "Linear probe" in printed and "Bits per pixel" in printed and "Codebook, level 1" in printed


def test_slots_of_a_stop_code():
    """JPEG's scans differ in length: the mean counts each up to its stop code."""
    c = vargen.config.load("jpeglm:digits")
    c.tokenizer.merges = 0
    tokenizer = vargen.models.build_tokenizer(c)
    model = vargen.Model(c, tokenizer.init(jax.random.key(0)))
    images, _ = data.arrays(data.load(c.data, "test"), 6)
    content = np.asarray(model.encode(data.to_float(images)))
    lengths = np.argmax(content == tokenizer.slot.stop, axis=1) + 1
    assert len(set(lengths)) > 1
    assert evaluate_tokenizer._slots(model, images, 4) == pytest.approx(lengths.mean())


def test_detail(trained, tmp_path, capsys):
    """--vtbench: on what is drawn, as `detail` measures the model's reconstructions."""
    given = [
        "evaluate",
        "--workdir",
        str(trained.workdir),
        "--tokenizer-only",
        "--vtbench",
        "--out",
        str(tmp_path),
    ]
    assert main.main(given) == 0
    found, model = json.loads((tmp_path / "tokenizer.json").read_text()), vargen.load(trained.workdir)
    made = detail.draw((16, 16), 1)
    expected = detail.measure(made, data.in_batches(model.reconstruct, data.to_float(made.images), 40))
    assert {k: v for k, v in found.items() if k.startswith("detail_")} == pytest.approx(
        expected, rel=1e-2, abs=1e-2
    )
    assert "psnr_db" in found and found["detail_characters"] < 0.9
    printed = capsys.readouterr().out
    assert "Letters read" in printed and "vtbench.png" in printed and (tmp_path / "vtbench.png").is_file()


@pytest.mark.slow
def test_published_pictures(trained, tmp_path, capsys, monkeypatch):
    """VTBench's layout; texts are read where there is a program for it, and named where there is none."""
    letters = np.zeros((40, 20, 3), np.uint8)
    for place in ("patterns/test-0.parquet", "movie_posters/test-0.parquet"):
        in_parquet.write(tmp_path / "data" / place, [letters, letters[:16, :16] + 200])
    given = [
        "evaluate",
        "--workdir",
        str(trained.workdir),
        "--tokenizer-only",
        "--vtbench",
        str(tmp_path / "data"),
    ]
    monkeypatch.setitem(sys.modules, "pytesseract", None)
    assert main.main([*given, "--out", str(tmp_path / "a")]) == 0
    found = json.loads((tmp_path / "a" / "tokenizer.json").read_text())
    ours = {k.removeprefix("vtbench_") for k in found if k.startswith("vtbench_")}
    assert ours == {f"{name}_{metric}" for name in ("patterns", "posters") for metric in ("psnr_db", "ssim")}
    assert "pip install vargen[ocr]" in capsys.readouterr().out and (tmp_path / "a" / "vtbench.png").is_file()
    # A program that reads black as a letter, and an error in every reconstruction.
    read = types.SimpleNamespace(
        get_tesseract_version=lambda: "5",
        TesseractNotFoundError=OSError,
        TesseractError=RuntimeError,
        image_to_string=lambda picture, lang: "abcd" if np.asarray(picture).std() == 0 else "abxd",
    )
    monkeypatch.setitem(sys.modules, "pytesseract", read)
    assert main.main([*given, "--out", str(tmp_path / "b")]) == 0
    found = json.loads((tmp_path / "b" / "tokenizer.json").read_text())
    assert found["vtbench_posters_cer"] == 1 / 4 and found["vtbench_posters_wer"] == 1
    assert "VTBench posters CER" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given, words",
    [
        (
            ["--tokenizer-only", "--samples", "9"],
            "--tokenizer-only: expected nothing that is of samples, found --samples",
        ),
        (["--tokenizer-only", "--top-k", "5"], "expected nothing that is of samples, found --top-k"),
        (["--lpips", "x.npz"], "--lpips: expected --tokenizer-only beside it"),
        (["--vtbench"], "--vtbench: expected --tokenizer-only beside it"),
        (["--tokenizer-only", "--vtbench", "nowhere"], "--vtbench nowhere: expected VTBench's folders"),
        (
            ["--tokenizer-only", "--lpips", "nowhere.npz"],
            "perceptual weights nowhere.npz: expected a file, found none",
        ),
    ],
)
def test_refused(trained, tmp_path, capsys, given, words):
    assert (
        main.main(["evaluate", "--workdir", str(trained.workdir), "--out", str(tmp_path / "o"), *given]) == 2
    )
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not (tmp_path / "o").exists()


def test_several_scales():
    """Each scale by itself: structure alone, luminance too at the last; powers that add up to 1."""
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, (2, 44, 50, 1))
    b = np.clip(a + 0.3 * rng.uniform(-1, 1, a.shape), -1, 1)
    powers, expected = metrics.SCALES[:3] / metrics.SCALES[:3].sum(), 1.0
    for i, power in enumerate(powers):
        blocks = 2**i
        x, y = (
            m[:, : 44 // blocks * blocks, : 50 // blocks * blocks, 0]
            .reshape(2, 44 // blocks, blocks, 50 // blocks, blocks)
            .mean((2, 4))[..., None]
            for m in (a, b)
        )
        if i == 2:
            term = metrics.ssim(x, y)
        else:  # without luminance: equal means have the luminance 1
            luminance, structure = metrics._similarity(x, y)
            term = np.mean(structure, axis=(1, 2, 3))
            assert np.all(np.mean(luminance * structure, axis=(1, 2, 3)) != term)
        expected = expected * term**power
    np.testing.assert_allclose(metrics.ms_ssim(a, b), expected, rtol=1e-9)
    np.testing.assert_allclose(metrics.ms_ssim(a, a), 1)
    np.testing.assert_allclose(metrics.ms_ssim(a[:, :21], b[:, :21]), metrics.ssim(a[:, :21], b[:, :21]))


def test_probe_is_ridge_regression():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(200, 2, 2, 3)), rng.integers(0, 4, 200)
    x[..., 0] += labels[:, None, None] * 0.4
    train, test = (
        [(x[s][:50], labels[s][:50]), (x[s][50:], labels[s][50:])] for s in (slice(120), slice(120, 200))
    )
    flat = x.reshape(200, -1)
    alpha = 120 * probe.RIDGE * np.mean(np.var(flat[:120], axis=0))
    ridge = Ridge(alpha=alpha).fit(flat[:120], np.eye(4)[labels[:120]])
    expected = np.mean(ridge.predict(flat[120:]).argmax(1) == labels[120:])
    assert probe.accuracy(train, test, 4) == expected and 0.4 < expected < 1
    assert probe.features(np.zeros((1, 32, 32, 16))).shape == (1, 1024)
