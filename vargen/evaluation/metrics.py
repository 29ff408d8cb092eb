"""Metrics of images and feature sets, in NumPy and float64: no number depends on the device.

Where images are compared, clips [B, T, H, W, C] are so frame by frame: [B T] numbers.
"""

from __future__ import annotations

import math

import numpy as np

from vargen.clips import as_pictures

# Images span [-1, 1].
DATA_RANGE = 2.0
# A perfect reconstruction has an infinite PSNR; mean squared errors below this count as this: 106 dB.
SMALLEST_MSE = 1e-10
# Powers of MS-SSIM's scales, fine to coarse.
SCALES = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def mse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared error of each image: float64 [B] for images [B, H, W, C] in [-1, 1]."""
    a, b = _images(a, b)
    return np.mean(np.square(a - b), axis=(1, 2, 3))


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each image, dB: 10 log10(2^2 / MSE), float64 [B], 106 at most.

    The usual figure for a set is the mean of these.
    """
    return 10 * np.log10(DATA_RANGE**2 / np.maximum(mse(a, b), SMALLEST_MSE))


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of each image (Wang et al. 2004): float64 [B] for images [B, H, W, C] in [-1, 1].

    Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, averaged over whole windows and channels:
    what `structural_similarity` of scikit-image gives with `gaussian_weights` and no `use_sample_covariance`.
    Images under 11 pixels get the largest odd window that fits.
    """
    luminance, structure = _similarity(*_images(a, b))
    return np.mean(luminance * structure, axis=(1, 2, 3))


def ms_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity at several scales (Wang et al. 2003): float64 [B] for images [B, H, W, C] in [-1, 1].

    Contrast and structure at each of five scales, each half the size of the one before by means of 2x2 pixels, and
    luminance at the last, to the powers of the paper's table. Smaller images than 176 pixels have as many scales as 11
    pixels leave, at least one, with powers that add up to 1 again. Negative structure counts as none.
    """
    a, b = _images(a, b)
    scales = int(np.clip(np.log2(min(a.shape[1:3]) / 11) + 1, 1, len(SCALES)))
    powers, result = SCALES[:scales] / SCALES[:scales].sum(), np.ones((len(a), a.shape[3]))
    for i, power in enumerate(powers):
        luminance, structure = _similarity(a, b)
        last = luminance * structure if i == scales - 1 else structure
        result = result * np.maximum(np.mean(last, axis=(1, 2)), 0.0) ** power
        if i < scales - 1:
            a, b = halved(a), halved(b)
    return np.mean(result, axis=1)


def halved(images: np.ndarray) -> np.ndarray:
    """[B, H, W, C] -> [B, H // 2, W // 2, C], means of 2x2 pixels."""
    height, width = (side // 2 for side in images.shape[1:3])
    blocks = images[:, : 2 * height, : 2 * width].reshape(len(images), height, 2, width, 2, -1)
    return blocks.mean(axis=(2, 4))


def _similarity(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminance, and contrast with structure, of every window: float64 [B, h, w, C]."""
    side = min(11, *a.shape[1:3])
    window = _gaussian(side - (side + 1) % 2, 1.5)
    c1, c2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
    mean_a, mean_b = _blur(a, window), _blur(b, window)
    var_a = _blur(a * a, window) - mean_a**2
    var_b = _blur(b * b, window) - mean_b**2
    covariance = _blur(a * b, window) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * covariance + c2) / (var_a + var_b + c2)


def _images(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim not in (4, 5):
        raise ValueError(
            f"images: expected two arrays of one shape [B, H, W, C], found {a.shape} and {b.shape}"
        )
    return as_pictures(a), as_pictures(b)


def _gaussian(size: int, sigma: float) -> np.ndarray:
    x = np.arange(size) - (size - 1) / 2
    weights = np.exp(-0.5 * (x / sigma) ** 2)
    return weights / weights.sum()


def _blur(images: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Separable correlation over rows and columns, whole windows only."""
    for axis in (1, 2):
        views = np.lib.stride_tricks.sliding_window_view(images, len(window), axis=axis)
        images = views @ window
    return images


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features [M, F] (Heusel et al. 2017, eq. 6).

    Covariances are unbiased (ddof 1), as in the field's FID. The value falls to its limit as samples grow
    in number: compare it at equal numbers only.
    """
    statistics = []
    for features in (features_a, features_b):
        features = np.asarray(features, np.float64)
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features: expected [M, F] with M of at least 2, found {features.shape}")
        statistics += [features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))]
    return frechet_distance_of_gaussians(*statistics)


def frechet_distance_of_gaussians(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) for means [F] and covariances [F, F]."""
    # S_a S_b has the eigenvalues of the symmetric S_a^(1/2) S_b S_a^(1/2), which have no imaginary rounding.
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ covariance_b @ root)
    trace_of_root = np.sum(np.sqrt(np.maximum(eigenvalues, 0)))
    difference = np.asarray(mean_a) - np.asarray(mean_b)
    distance = difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * trace_of_root
    return float(max(distance, 0.0))


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019) of features [M, F] and [G, F].

    A set covers a point that is no farther from one of its members than that member's k-th nearest neighbour
    in the set. Precision: share of the generated that the real cover; recall: the converse.
    """
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    for name, features in (("real", real), ("generated", generated)):
        if features.ndim != 2 or len(features) <= k:
            raise ValueError(f"{name} features: expected [M, F] with M above k={k}, found {features.shape}")
    return _covered(generated, real, k), _covered(real, generated, k)


def _covered(points: np.ndarray, members: np.ndarray, k: int, rows: int = 1024) -> float:
    """Share of `points` within the neighbourhoods of `members`; `rows` of distances in memory at once."""
    radii = np.empty(len(members))
    for start in range(0, len(members), rows):
        distances = _squared_distances(members[start : start + rows], members)
        np.fill_diagonal(distances[:, start:], 0)  # exactly, so that a point is the first neighbour of itself
        radii[start : start + rows] = np.partition(distances, k, axis=1)[:, k]
    covered = 0
    for start in range(0, len(points), rows):
        distances = _squared_distances(points[start : start + rows], members)
        covered += int(np.sum(np.any(distances <= radii, axis=1)))
    return covered / len(points)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)
    return np.maximum(squares - 2 * (a @ b.T), 0)


def bits(nats: float, count: int) -> float:
    """`nats` spread over `count` values, in bits: nats / (count ln 2)."""
    return float(nats) / (count * math.log(2))
