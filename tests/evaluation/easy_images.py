"""Images of three classes that a small classifier tells apart in a second."""

import numpy as np

from vargen import data
from vargen.evaluation import classifier as c

QUICK = c.Settings(width=8, features=16, steps=80, batch_size=32)


def bars(count, seed=0, size=8):
    """Vertical, horizontal and no bars under noise: three classes that are easy to tell apart."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, size, size, 1), np.uint8)
    labels = np.arange(count) % 3
    for image, label in zip(images, labels):
        at = rng.integers(1, size - 1)
        if label == 0:
            image[at] = 255
        if label == 1:
            image[:, at] = 255
    return data.ArraySource("bars", ["row", "column", "none"], images, labels)
