"""The training pictures nearest to samples: whether a model draws, or remembers."""

from __future__ import annotations

import numpy as np

from vargen.clips import as_pictures

SIDE = 16  # pixels to which pictures are averaged: what they show, whatever their noise
ROWS = 256


def nearest(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each image the nearest one of others, by the mean squared difference of the two, averaged to 16x16.

    Args:
      images: uint8 or float in [-1, 1], [B, H, W, C].
      others: float64 [M, F], as `small` makes them, once for all.

    Returns:
      int [B], places in `others`, and float64 [B], root mean squared differences in [-1, 1].
    """
    a, b = small(images), others
    squares = np.sum(b * b, axis=1)
    places, distances = [], []
    for start in range(0, len(a), ROWS):
        some = a[start : start + ROWS]
        found = np.sum(some * some, axis=1)[:, None] + squares - 2 * (some @ b.T)
        best = np.argmin(found, axis=1)
        places.append(best)
        # Of the pair itself: the products above lose what two equal pictures have left.
        distances.append(np.sqrt(np.mean((some - b[best]) ** 2, axis=1)))
    return np.concatenate(places), np.concatenate(distances)


def small(images: np.ndarray) -> np.ndarray:
    """Images, uint8 or float in [-1, 1], [B, H, W, C], averaged down to at most 16x16: float64 [B, h * w * C]; of clips
    all frames, one after another."""
    count, images = len(images), as_pictures(np.asarray(images))
    b, height, width, _ = images.shape
    h, w = _divisor(height), _divisor(width)
    averaged = []
    for start in range(0, b, ROWS):  # large pictures by the thousand don't fit in memory as float64
        values = images[start : start + ROWS].astype(np.float64)
        if images.dtype == np.uint8:
            values = values / 127.5 - 1
        values = values.reshape(len(values), h, height // h, w, width // w, -1)
        averaged.append(values.mean(axis=(2, 4)).reshape(len(values), -1))
    return np.concatenate(averaged).reshape(count, -1)


def _divisor(side: int) -> int:
    """The largest divisor of `side` up to 16."""
    return max(d for d in range(1, SIDE + 1) if side % d == 0)
