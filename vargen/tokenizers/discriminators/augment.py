"""What pictures go through before they are judged, real and decoded ones alike (DiffAugment, arXiv 2006.10738).

Changes are affine in the pixels, and gradients go through them. What lies outside a picture, and in a square that is
cut out, is the grey between black and white, 0.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

KINDS = ("color", "translation", "cutout")
FARTHEST = 1 / 8  # of a side, that pictures are moved by


class Changes(NamedTuple):
    """What is drawn for each picture.

    Attributes:
      brightness: float32 [B], added: from -1/2 to 1/2.
      saturation: float32 [B], the factor on a pixel's distance from the mean of its channels: from 0 to 2.
      contrast: float32 [B], that on all numbers' distance from their mean: from 1/2 to 3/2.
      shift: int32 [B, 2], pixels down and right: an eighth of a side at most.
      middle: int32 [B, 2], row and column of the middle of what is cut out.
    """

    brightness: jax.Array
    saturation: jax.Array
    contrast: jax.Array
    shift: jax.Array
    middle: jax.Array


def draw(key: jax.Array, batch: int, size: tuple[int, int], hole: float) -> Changes:
    """The changes of so many pictures of (H, W) pixels, in which a share `hole` of each side is cut out."""
    keys = jax.random.split(key, 5)
    brightness, saturation, contrast = (
        jax.random.uniform(k, (batch,), minval=low, maxval=high)
        for k, (low, high) in zip(keys[:3], ((-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)), strict=True)
    )
    most = np.array([_whole(side, FARTHEST) for side in size])
    shift = jax.random.randint(keys[3], (batch, 2), -most, most + 1)
    # A square of an even side has its middle between two pixels, and so one more place.
    places = np.array([side + 1 - _whole(side, hole) % 2 for side in size])
    return Changes(
        brightness, saturation, contrast, shift, jax.random.randint(keys[4], (batch, 2), 0, places)
    )


def apply(images: jax.Array, changes: Changes, kinds: tuple[str, ...], hole: float) -> jax.Array:
    """The pictures, changed: colour first, then they are moved, then a square is cut out.

    Args:
      images: float32 [B, H, W, C] in [-1, 1].
      changes: of each.
      kinds: which of `KINDS` are made.
      hole: share of each side that is cut out.

    Returns:
      float32 [B, H, W, C].
    """
    x, sides = images, images.shape[1:3]
    if "color" in kinds:
        brightness, saturation, contrast = (y[:, None, None, None] for y in changes[:3])
        x = x + brightness
        grey = jnp.mean(x, axis=-1, keepdims=True)
        x = grey + saturation * (x - grey)
        mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
        x = mean + contrast * (x - mean)
    if "translation" in kinds:
        for axis, side in enumerate(sides):
            come_from = np.arange(side) - changes.shift[:, axis, None]
            inside = (come_from >= 0) & (come_from < side)
            shape = [len(x), 1, 1, 1]
            shape[1 + axis] = side
            x = jnp.take_along_axis(x, jnp.clip(come_from, 0, side - 1).reshape(shape), axis=1 + axis)
            x = jnp.where(inside.reshape(shape), x, 0.0)
    if "cutout" in kinds:
        out = []
        for axis, side in enumerate(sides):
            pixels = _whole(side, hole)
            first = changes.middle[:, axis, None] - pixels // 2
            # What would lie outside is left out.
            out.append((np.arange(side) >= first) & (np.arange(side) < first + pixels))
        x = jnp.where((out[0][:, :, None] & out[1][:, None])[..., None], 0.0, x)
    return x


def _whole(side: int, share: float) -> int:
    """Pixels of a share of a side."""
    return int(side * share + 0.5)
