"""What a linear map reads from latents: how much of a class is plain in them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vargen.clips import as_pictures
from vargen.evaluation.metrics import halved

LARGEST = 2048  # numbers of a latent; grids are averaged down to as many
RIDGE = 1e-2  # of the mean variance


def features(latents: np.ndarray) -> np.ndarray:
    """Latents [B, h, w, C] or [B, t, h, w, C] -> float64 [B, F], the grid averaged over squares while there are more
    than `LARGEST`."""
    x = np.asarray(latents, np.float64)
    while x[0].size > LARGEST and min(x.shape[-3:-1]) > 1:
        half = halved(as_pictures(x))
        x = half.reshape(*x.shape[:-3], *half.shape[1:])
    return x.reshape(len(x), -1)


def accuracy(
    train: Iterable[tuple[np.ndarray, np.ndarray]],
    test: Iterable[tuple[np.ndarray, np.ndarray]],
    classes: int,
) -> float:
    """The share of `test` whose class ridge regression of the classes' indicators on `train` finds.

    Args:
      train, test: batches of latents [b, h, w, C] and labels int [b].
      classes: their number.

    Returns:
      From 0 to 1.
    """
    gram, products, count = 0.0, 0.0, 0
    for latents, labels in train:
        x = _with_one(features(latents))
        gram, products, count = gram + x.T @ x, products + x.T @ np.eye(classes)[labels], count + len(x)
    gram = np.asarray(gram) / count
    size = len(gram) - 1
    variance = max(float(np.mean(np.diag(gram)[:size] - gram[size, :size] ** 2)), 1e-12)
    penalty = np.diag([*np.full(size, RIDGE * variance), 0.0])
    weights = np.linalg.solve(gram + penalty, np.asarray(products) / count)
    right = [np.argmax(_with_one(features(x)) @ weights, axis=1) == labels for x, labels in test]
    return float(np.mean(np.concatenate(right)))


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)
