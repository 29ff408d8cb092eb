"""Metrics against formulas written out independently, and values that a person can check."""

import numpy as np
import pytest
import scipy.linalg

from vargen.evaluation import metrics

RNG = np.random.default_rng(0)


def images(count=3, size=16, channels=2):
    return RNG.uniform(-1, 1, (count, size, size, channels)).astype(np.float32)


def test_mse_and_psnr_by_hand():
    a = np.zeros((2, 4, 4, 1))
    b = np.stack([np.full((4, 4, 1), 0.2), np.full((4, 4, 1), 2.0)])
    np.testing.assert_allclose(metrics.mse(a, b), [0.04, 4.0])
    np.testing.assert_allclose(
        metrics.psnr(a, b), [20.0, 0.0], atol=1e-9
    )  # 10 log10(4 / 0.04), 10 log10(4 / 4)
    assert metrics.psnr(a, a) == pytest.approx(10 * np.log10(4e10))


def windows_ssim(a, b, side):
    """Wang et al. 2004, eq. 13, window by window, in float64."""
    x = np.arange(side) - (side - 1) / 2
    weights = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    values = []
    for i in range(a.shape[0] - side + 1):
        for j in range(a.shape[1] - side + 1):
            for c in range(a.shape[2]):
                p, q = (m[i : i + side, j : j + side, c].astype(np.float64) for m in (a, b))
                mp, mq = (weights * p).sum(), (weights * q).sum()
                vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                cov = (weights * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(values)


@pytest.mark.parametrize("size, side", [(16, 11), (11, 11), (8, 7)])
def test_ssim_is_the_formula(size, side):
    a = images(size=size)
    b = np.clip(a + 0.3 * images(size=size), -1, 1)
    expected = [windows_ssim(x, y, side) for x, y in zip(a, b)]
    np.testing.assert_allclose(metrics.ssim(a, b), expected, rtol=1e-9)
    np.testing.assert_allclose(metrics.ssim(a, a), 1, atol=1e-12)


def test_clips_frame_by_frame():
    a, b = RNG.uniform(-1, 1, (2, 2, 5, 12, 14, 1))
    for metric in (metrics.mse, metrics.psnr, metrics.ssim, metrics.ms_ssim):
        expected = np.concatenate([metric(x, y) for x, y in zip(a, b, strict=True)])
        np.testing.assert_array_equal(metric(a, b), expected)


def test_images_of_two_shapes():
    with pytest.raises(ValueError, match="one shape"):
        metrics.psnr(np.zeros((1, 4, 4, 1)), np.zeros((1, 4, 4, 3)))


def test_frechet_distance_of_diagonal_gaussians():
    """sum (m_a - m_b)^2 + (s_a - s_b)^2 over the axes."""
    mean_a, mean_b = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    deviation_a, deviation_b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 1.0])
    found = metrics.frechet_distance_of_gaussians(
        mean_a, np.diag(deviation_a**2), mean_b, np.diag(deviation_b**2)
    )
    assert found == pytest.approx(1 + 4 + 1 + 4)


def test_frechet_distance_is_scipys():
    a = RNG.normal(size=(200, 12)) @ RNG.normal(size=(12, 12))
    b = RNG.normal(size=(150, 12)) @ RNG.normal(size=(12, 12)) + 0.3
    ca, cb = (np.cov(x, rowvar=False, ddof=1) for x in (a, b))
    root = scipy.linalg.sqrtm(ca @ cb).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(ca + cb - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert metrics.frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_degenerate_features():
    """Fewer samples than features: the covariances are singular and nothing is complex or NaN."""
    a, b = RNG.normal(size=(5, 20)), RNG.normal(size=(6, 20))
    assert np.isfinite(metrics.frechet_distance(a, b))
    with pytest.raises(ValueError, match="at least 2"):
        metrics.frechet_distance(a[:1], b)


def brute_precision_recall(real, fake, k):
    def covered(points, members):
        count = 0
        for point in points:
            for member in members:
                radius = np.sort(np.linalg.norm(members - member, axis=1))[k]
                if np.linalg.norm(point - member) <= radius:
                    count += 1
                    break
        return count / len(points)

    return covered(fake, real), covered(real, fake)


@pytest.mark.parametrize("rows", (7, 1024))
def test_precision_and_recall_by_brute_force(rows, monkeypatch):
    real, fake = RNG.normal(size=(40, 3)), RNG.normal(size=(30, 3)) + 0.8
    monkeypatch.setattr(metrics._covered, "__defaults__", (rows,))
    assert metrics.precision_recall(real, fake) == pytest.approx(brute_precision_recall(real, fake, 3))


def test_precision_and_recall_tell_quality_from_variety():
    real = RNG.normal(size=(200, 2))
    few = real[:4].repeat(20, axis=0) + 0.001 * RNG.normal(size=(80, 2))  # good, but four modes
    precision, recall = metrics.precision_recall(real, few)
    assert precision == 1 and recall < 0.1
    assert metrics.precision_recall(real, real + 100) == (0, 0)
    assert metrics.precision_recall(real, real) == (1, 1)
    with pytest.raises(ValueError, match="above k=3"):
        metrics.precision_recall(real, few[:3])


def test_bits():
    assert metrics.bits(np.log(2) * 30, 10) == pytest.approx(3)
