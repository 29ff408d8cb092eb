"""Maximum mean discrepancies of two sets of features: KID and CMMD, in NumPy and float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# KID's, as torch-fidelity has them.
SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020
# CMMD's, of its authors.
SIGMA, SCALE = 10.0, 1000.0
ROWS = 4096  # of a matrix of kernels at once


class KID(NamedTuple):
    """Mean and standard deviation over subsets."""

    mean: float
    deviation: float


def kid(
    reference: np.ndarray,
    samples: np.ndarray,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = SEED,
) -> KID:
    """Kernel Inception distance (Bińkowski et al. 2018): the kernel (x y / F + 1)^3, unbiased, over random subsets.

    Args:
      reference, samples: features [M, F] and [G, F], of at least `subset_size` each.
      subsets, subset_size: how many, and of how many features each.
      seed: of the subsets, drawn as torch-fidelity draws them.

    Raises:
      ValueError: too few features.
    """
    sets = _sets(reference, samples)
    for name, features in zip(("reference", "samples"), sets, strict=True):
        if len(features) < max(subset_size, 2):
            raise ValueError(f"{name}: expected at least {subset_size} features, found {len(features)}")
    random, n, found = np.random.RandomState(seed), subset_size, []
    for _ in range(subsets):
        a, b = (features[random.choice(len(features), n, replace=False)] for features in sets)
        aa, bb, ab = (_polynomial(*pair) for pair in ((a, a), (b, b), (a, b)))
        within = (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (n * (n - 1))
        found.append(within - 2 * ab.mean())
    return KID(float(np.mean(found)), float(np.std(found)))


def cmmd(reference: np.ndarray, samples: np.ndarray) -> float:
    """CMMD (Jayasumana et al. 2024): 1000 times the squared discrepancy under a Gaussian kernel of width 10, biased.

    Args:
      reference, samples: CLIP's embeddings of images [M, F] and [G, F], brought to length 1 here.
    """
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in _sets(reference, samples))
    return SCALE * (_mean(a, a, _gaussian) + _mean(b, b, _gaussian) - 2 * _mean(a, b, _gaussian))


def _sets(reference: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(reference, np.float64), np.asarray(samples, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features: expected [M, F] and [G, F], found {a.shape} and {b.shape}")
    return a, b


def _polynomial(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    root = a @ b.T / a.shape[1] + 1
    return root * root * root  # a power takes ten times as long


def _gaussian(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1) - 2 * (a @ b.T)
    return np.exp(-squares / (2 * SIGMA**2))


def _mean(a: np.ndarray, b: np.ndarray, kernel: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    """Of the kernel of all pairs."""
    sums = [
        kernel(a[i : i + ROWS], b[j : j + ROWS]).sum()
        for i in range(0, len(a), ROWS)
        for j in range(0, len(b), ROWS)
    ]
    return float(np.sum(sums) / (len(a) * len(b)))
