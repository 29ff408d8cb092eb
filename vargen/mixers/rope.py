"""Rotary positions in one or more dimensions (RoFormer, arXiv 2104.09864; LlamaGen, arXiv 2406.06525)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def rotate(x: jax.Array, coords, base: float = 10000.0) -> jax.Array:
    """Rotates pairs of channels by angles that grow with the coordinates.

    The channels are divided evenly among the A axes; within an axis, channels (2i, 2i+1) turn by
    coordinate * base^(-2i A / D).

    Args:
      x: [B, N, H, D], D divisible by 2A.
      coords: int [N, A] or [B, N, A]; a row of negative coordinates has no position and becomes zero, as
        LlamaGen's condition tokens do (their cosines and sines are zero).
      base: the slowest period over 2 pi.

    Returns:
      [B, N, H, D] in x's dtype.
    """
    axes, dim = coords.shape[-1], x.shape[-1]
    if dim % (2 * axes):
        raise ValueError(f"rotary positions: head size {dim} is not divisible by twice the {axes} axes")
    per_axis = dim // axes
    frequencies = base ** (-np.arange(0, per_axis, 2, dtype=np.float32) / per_axis)
    coords = jnp.asarray(coords)
    angles = (coords[..., None].astype(jnp.float32) * frequencies).reshape(*coords.shape[:-1], dim // 2)
    placed = jnp.all(coords >= 0, axis=-1)[..., None]
    cos = jnp.where(placed, jnp.cos(angles), 0.0)[..., None, :]
    sin = jnp.where(placed, jnp.sin(angles), 0.0)[..., None, :]
    even, odd = x[..., 0::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
    turned = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
