"""`vargen evaluate --tokenizer-only`: its numbers against another way to them."""

import json
import math

import numpy as np
import pytest
from PIL import Image

import vargen
from vargen import data
from vargen.cli import main
from vargen.evaluation import metrics, probe


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


@pytest.mark.parametrize(
    "given, words",
    [
        (
            ["--tokenizer-only", "--samples", "9"],
            "--tokenizer-only: expected nothing that is of samples, found --samples",
        ),
        (["--tokenizer-only", "--top-k", "5"], "expected nothing that is of samples, found --top-k"),
        (["--lpips", "x.npz"], "--lpips: expected --tokenizer-only beside it"),
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
