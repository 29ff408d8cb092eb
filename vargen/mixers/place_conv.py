"""A depthwise convolution over the places of rows, in whatever sequence they come."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vargen.mixers.layout import Layout


def place_conv(x, kernel, bias, layout: Layout) -> jax.Array:
    """y_i = bias + sum over the taps of kernel_tap x_j, j the row of i's own step that lies tap away from i.

    A tap where no such row is counts as zero, and so does any but the middle one of a row that lies nowhere. On a
    step that is a whole grid this is the usual convolution, padded with zeros.

    Args:
      x: [B, N, C].
      kernel: [W, W, C], W odd: down, then across.
      bias: [C].
      layout: coords [N, A] or [B, N, A] and steps; rows of different frames aren't neighbours.

    Returns:
      [B, N, C] in x's dtype (float32 inside).
    """
    half = kernel.shape[0] // 2
    kernel, rows = kernel.astype(jnp.float32), x.astype(jnp.float32)
    y = bias.astype(jnp.float32) + kernel[half, half] * rows
    for down, across in np.ndindex(kernel.shape[:2]):
        if (down, across) == (half, half):
            continue
        index, found = _neighbour(layout, (down - half, across - half))
        if isinstance(found, np.ndarray) and not found.any():
            continue
        there = rows[:, index] if index.ndim == 1 else jnp.take_along_axis(rows, index[..., None], axis=1)
        y = y + kernel[down, across] * jnp.where(found[..., None], there, 0.0)
    return y.astype(x.dtype)


def _neighbour(layout: Layout, offset):
    """Index [.., N] of the row of the same step that lies `offset` away, and whether there is one."""
    static = isinstance(layout.coords, np.ndarray) and isinstance(layout.steps, np.ndarray)
    module = np if static else jnp
    coords, steps = module.asarray(layout.coords), module.asarray(layout.steps)
    away = np.zeros(coords.shape[-1], np.int32)
    away[-2:] = offset
    target = (coords + away)[..., :, None, :]
    near = (target == coords[..., None, :, :]) & (target >= 0)
    match = module.all(near, axis=-1) & (steps[..., :, None] == steps[..., None, :])
    match = match & module.all(coords >= 0, axis=-1)[..., :, None]
    return module.argmax(match, axis=-1), module.any(match, axis=-1)
