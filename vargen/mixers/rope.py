"""Rotary positions in one or more dimensions (RoFormer, arXiv 2104.09864; LlamaGen, arXiv 2406.06525)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from vargen.slots import Grid

WHOLE = 2  # the fastest frequencies of an axis, which larger grids don't squeeze (RandAR, official code)


def squeeze(grid: Grid | None, trained: int) -> tuple[float, ...] | None:
    """Factors on the rows and columns of a grid that is larger than the one of `trained` x `trained` places that the
    positions were trained on: its last place lies where that one's did. None where `trained` is 0."""
    if not trained or grid is None:
        return None
    return tuple((trained - 1) / max(side - 1, 1) for side in grid.levels[0])


def rotate(
    x: jax.Array, coords, base: float = 10000.0, squeezed: tuple[float, ...] | None = None
) -> jax.Array:
    """Rotates pairs of channels by angles that grow with the coordinates.

    The channels are divided evenly among the A axes; within an axis, channels (2i, 2i+1) turn by
    coordinate * base^(-2i A / D).

    Args:
      x: [B, N, H, D], D divisible by 2A.
      coords: int [N, A] or [B, N, A]; a row of negative coordinates has no position and becomes zero, as
        LlamaGen's condition tokens do (their cosines and sines are zero).
      base: the slowest period over 2 pi.
      squeezed: None, or factors [A] on the coordinates of all frequencies but the `WHOLE` fastest of each axis: these
        see near places as they were trained, the others all of a larger grid in the room of the smaller one.

    Returns:
      [B, N, H, D] in x's dtype.
    """
    axes, dim = coords.shape[-1], x.shape[-1]
    if dim % (2 * axes):
        raise ValueError(f"rotary positions: head size {dim} is not divisible by twice the {axes} axes")
    per_axis = dim // axes
    frequencies = base ** (-np.arange(0, per_axis, 2, dtype=np.float32) / per_axis)
    if squeezed is not None:
        slower = np.arange(len(frequencies)) >= WHOLE
        frequencies = frequencies * np.where(slower, np.asarray(squeezed)[:, None], 1.0).astype(np.float32)
    coords = jnp.asarray(coords)
    angles = (coords[..., None].astype(jnp.float32) * frequencies).reshape(*coords.shape[:-1], dim // 2)
    placed = jnp.all(coords >= 0, axis=-1)[..., None]
    cos = jnp.where(placed, jnp.cos(angles), 0.0)[..., None, :]
    sin = jnp.where(placed, jnp.sin(angles), 0.0)[..., None, :]
    even, odd = x[..., 0::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
    turned = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def shares(axes: int) -> tuple[int, ...]:
    """How `mix_halves` divides the channels: rows and columns 1:1, frames, rows and columns 2:3:3."""
    return (1, 1) if axes == 2 else (2, 3, 3)


def half_angles(coords, dim: int, grid: Grid) -> jax.Array:
    """float32 [..., D]: the angles of `mix_halves` at coords int [..., A].

    An axis of length L (the last level's) has base 100 (1 + floor(floor(8 L / pi) / 100)) and frequencies base^-x, x
    evenly from 0 to 1, each in the first and again in the second half of the axis's channels.
    """
    sides = grid.levels[-1] if coords.shape[-1] == 2 else (grid.frames, *grid.levels[-1])
    each = shares(len(sides))
    found = []
    for axis, (side, share) in enumerate(zip(sides, each, strict=True)):
        count = share * (dim // 2 // sum(each))
        exponents = np.linspace(0, 1, count).astype(np.float32)
        frequencies = np.float32(1) / np.power(np.float32(half_base(side)), exponents)
        angles = jnp.asarray(coords[..., axis, None]).astype(jnp.float32) * frequencies
        found += [angles, angles]
    return jnp.concatenate(found, axis=-1)


def half_base(side: int) -> int:
    """The base of an axis of so many places."""
    return (int(8 * side / math.pi) // 100 + 1) * 100


def mix_halves(x: jax.Array, coords, grid: Grid) -> jax.Array:
    """Pairs channel j of the first half with j of the second, each by an angle of its own (ACDiT, official code).

        y_j = x_j cos a_j - x_(j + D/2) sin a_j,    y_(j + D/2) = x_(j + D/2) cos a_(j + D/2) + x_j sin a_(j + D/2)

    The angles of the two differ, of two axes even the axis does: no rotation, and not relative.

    Args:
      x: [B, N, H, D], D a multiple of twice the sum of `shares`.
      coords: int [N, A] or [B, N, A], see `half_angles`; a row of negative ones stays as it is.
      grid: the slots.

    Returns:
      [B, N, H, D] in x's dtype.
    """
    angles = half_angles(coords, x.shape[-1], grid)
    angles = jnp.where(jnp.all(jnp.asarray(coords) >= 0, axis=-1)[..., None], angles, 0.0)[..., None, :]
    y = x.astype(jnp.float32)
    first, second = jnp.split(y, 2, axis=-1)
    crossed = jnp.concatenate([-second, first], axis=-1)
    return (y * jnp.cos(angles) + crossed * jnp.sin(angles)).astype(x.dtype)
