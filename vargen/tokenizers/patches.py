"""Images as patches, row by row, and clips as tubelets, frame by frame: what encoders over them share."""

from __future__ import annotations

import math
from typing import Any

import jax

from vargen.errors import UserError
from vargen.limits import divisors


def grid(
    image_size: tuple[int, ...], patch: int, field: str = "tokenizer.encoder.patch", frames: int = 1
) -> tuple[int, ...]:
    """(H/p, W/p), how many patches of p pixels a side an image has, p of a field of the config; of a clip of T frames
    (T/t, H/p, W/p), where t frames are a patch together.

    Raises:
      UserError: it does not divide into patches; several frames to a patch of pictures, which have one.
    """
    *length, height, width = image_size
    if height % patch or width % patch:
        raise UserError(
            f"config field {field}: expected a divisor of the image's {height}x{width} pixels, found {patch}; "
            f"for instance {divisors(math.gcd(height, width), patch, least=2)}"
        )
    if not length and frames > 1:
        raise UserError(
            f"config field {field}_frames: expected 1 for pictures, found {frames}; --config.data.frames above 1 are "
            "clips"
        )
    if any(count % frames for count in length):
        raise UserError(
            f"config field {field}_frames: expected a divisor of the clip's {length[0]} frames, found {frames}; for "
            f"instance {divisors(length[0], frames)}"
        )
    return (*(count // frames for count in length), height // patch, width // patch)


def sides(patch: int, frames: int, axes: int) -> tuple[int, ...]:
    """Of a patch, (p, p), or where a grid has three axes (t, p, p)."""
    return (frames, patch, patch)[-axes:]


def apart(images: Any, patch: int | tuple[int, ...]) -> Any:
    """[B, H, W, C] -> [B, H/p W/p, p p C]; [B, T, H, W, C] by sides (t, p, p) -> [B, T/t H/p W/p, t p p C]."""
    batch, *size, channels = images.shape
    each = (patch,) * len(size) if isinstance(patch, int) else patch
    x = images.reshape(batch, *(n for x, s in zip(size, each, strict=True) for n in (x // s, s)), channels)
    x = x.transpose(0, *range(1, x.ndim - 1, 2), *range(2, x.ndim, 2), x.ndim - 1)
    return x.reshape(batch, -1, math.prod(each) * channels)


def together(rows: jax.Array, shape: tuple[int, ...], patch: int | tuple[int, ...]) -> jax.Array:
    """The inverse of `apart` for a grid of that shape: [B, h w, p p C] or [B, h, w, p p C] -> [B, h p, w p, C]."""
    each = (patch,) * len(shape) if isinstance(patch, int) else patch
    x = rows.reshape(len(rows), *shape, *each, -1)
    axes = len(shape)
    x = x.transpose(0, *(i for k in range(1, axes + 1) for i in (k, k + axes)), x.ndim - 1)
    return x.reshape(len(rows), *(n * s for n, s in zip(shape, each, strict=True)), -1)


def resampled(table: jax.Array, shape: tuple[int, int], other: tuple[int, int]) -> jax.Array:
    """A table of places [h w, D] of a grid (h, w), interpolated to another: [h' w', D]; cubic, without aliases."""
    if shape == other:
        return table
    found = jax.image.resize(table.reshape(*shape, -1), (*other, table.shape[-1]), "cubic")
    return found.reshape(-1, table.shape[-1])
