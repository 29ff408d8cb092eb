"""Images as patches, row by row: what encoders over them share."""

from __future__ import annotations

import math

import jax

from vargen.errors import UserError
from vargen.limits import divisors


def grid(image_size: tuple[int, int], patch: int, field: str = "tokenizer.encoder.patch") -> tuple[int, int]:
    """(H/p, W/p), how many patches of p pixels a side an image has, p of a field of the config.

    Raises:
      UserError: it does not divide into patches.
    """
    if any(side % patch for side in image_size):
        pixels = "x".join(map(str, image_size))
        raise UserError(
            f"config field {field}: expected a divisor of the image's {pixels} pixels, found {patch}; "
            f"for instance {divisors(math.gcd(*image_size), patch, least=2)}"
        )
    return image_size[0] // patch, image_size[1] // patch


def apart(images: jax.Array, patch: int) -> jax.Array:
    """[B, H, W, C] -> [B, H/p W/p, p p C]."""
    batch, height, width, channels = images.shape
    x = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(batch, -1, patch * patch * channels)


def together(rows: jax.Array, shape: tuple[int, int], patch: int) -> jax.Array:
    """[B, h w, p p C] or [B, h, w, p p C], with (h, w) -> [B, h p, w p, C]."""
    x = rows.reshape(len(rows), *shape, patch, patch, -1).swapaxes(2, 3)
    return x.reshape(len(rows), shape[0] * patch, shape[1] * patch, -1)


def resampled(table: jax.Array, shape: tuple[int, int], other: tuple[int, int]) -> jax.Array:
    """A table of places [h w, D] of a grid (h, w), interpolated to another: [h' w', D]; cubic, without aliases."""
    if shape == other:
        return table
    found = jax.image.resize(table.reshape(*shape, -1), (*other, table.shape[-1]), "cubic")
    return found.reshape(-1, table.shape[-1])
