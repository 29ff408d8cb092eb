"""The handwritten digits that ship with vargen (see assets/DIGITS.txt for their origin and licence)."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from typing import Any

import numpy as np

from vargen.data.sources import ArraySource, check_memory
from vargen.errors import UserError

SIDE = 8  # pixels
BRIGHTEST = 16  # the grey levels are 0 to 16


def load(settings: Mapping[str, Any], split: str) -> ArraySource:
    """1437 digits for training or 360 held-out ones (36 of each class), enlarged smoothly to `image_size`.

    Raises:
      UserError: `image_size` is below 8, or so large that the digits fill the memory.
    """
    size = settings["image_size"]
    if size < SIDE:
        raise UserError(f"data.image_size: expected at least {SIDE} for digits, found {size}")
    with importlib.resources.files("vargen.data").joinpath("assets/digits.npz").open("rb") as file:
        stored = np.load(file)
        images, labels, test = stored["images"], stored["labels"], stored["test"]
    chosen = test if split == "test" else ~test
    grey = images[chosen].astype(np.float64) / BRIGHTEST
    check_memory("digits", len(images), size, settings["channels"])
    weights = cubic_weights(SIDE, size)
    # One by one: in float64 all of them would take eight times what they take in the end.
    pixels = np.stack([np.rint(255 * np.clip(weights @ x @ weights.T, 0, 1)).astype(np.uint8) for x in grey])
    pixels = np.repeat(pixels[..., None], settings["channels"], axis=-1)
    return ArraySource("digits", [str(digit) for digit in range(10)], pixels, labels[chosen])


def cubic_weights(old: int, new: int) -> np.ndarray:
    """Interpolation of `old` samples to `new` >= old ones by Keys' cubic (a = -1/2): float64 [new, old].

    Pixel centres lie at half-integers; the edge sample is repeated outside.
    """
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(np.int64) - 1
    taps = first[:, None] + np.arange(4)
    x = np.abs(centre[:, None] - taps)
    values = np.where(x <= 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new)[:, None], np.clip(taps, 0, old - 1)), values)
    return weights
