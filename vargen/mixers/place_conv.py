"""A depthwise convolution over the places of rows, in whatever sequence they come."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.layout import Layout


def place_conv(x, kernel, bias, layout: Layout) -> jax.Array:
    """y_i = bias + sum over the taps of kernel_tap x_j, j the row of i's own step that lies tap away from i.

    A tap where no such row is counts as zero, and so does any but the middle one of a row that lies nowhere. On
    steps that are whole grids this is the usual convolution, padded with zeros, and computed as such.

    Args:
      x: [B, N, C].
      kernel: [W, W, C], W odd: down, then across.
      bias: [C].
      layout: coords [N, A] or [B, N, A] and steps; rows of different frames aren't neighbours.

    Returns:
      [B, N, C] in x's dtype (sums in float32).
    """
    kernel, bias = kernel.astype(x.dtype), bias.astype(jnp.float32)
    half = kernel.shape[0] // 2
    if grids := whole_grids(layout):
        prefix, frames, height, width = grids
        cells = x[:, prefix:].reshape(-1, height, width, x.shape[-1])
        y = jax.lax.conv_general_dilated(
            cells,
            kernel[:, :, None],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )
        y = jnp.concatenate([kernel[half, half] * x[:, :prefix], y.reshape(x[:, prefix:].shape)], axis=1)
        return (y + bias).astype(x.dtype)
    kernel, rows = kernel.astype(jnp.float32), x.astype(jnp.float32)
    y = bias + kernel[half, half] * rows
    for down, across in np.ndindex(kernel.shape[:2]):
        if (down, across) == (half, half):
            continue
        index, found = _neighbour(layout, (down - half, across - half))
        if static.known(found) and not found.any():
            continue
        there = rows[:, index] if index.ndim == 1 else jnp.take_along_axis(rows, index[..., None], axis=1)
        y = y + kernel[down, across] * jnp.where(found[..., None], there, 0.0)
    return y.astype(x.dtype)


def whole_grids(layout: Layout) -> tuple[int, int, int, int] | None:
    """(rows that lie nowhere, frames, height, width) where after the former all steps are whole frames, row by
    row; None where that isn't so, or isn't known before tracing."""
    coords, steps = layout.coords, layout.times
    if not static.known(coords, steps) or coords.ndim > 2 or steps.ndim > 1:
        return None
    prefix = int(np.sum(coords.min(axis=-1) < 0))
    coords, steps = coords[prefix:], steps[prefix:]
    if not len(coords):
        return None
    height, width = (int(c) + 1 for c in coords[:, -2:].max(axis=0))
    if len(coords) % (height * width):
        return None
    coords = coords.reshape(-1, height * width, coords.shape[-1])
    steps = steps.reshape(coords.shape[:2])
    places = np.indices((height, width)).reshape(2, -1).T
    # A frame is all of one step; without a coordinate of their own, frames differ by their steps.
    of_frame = np.concatenate([steps[..., None], coords[..., :-2]], axis=-1)
    whole = np.all(coords[..., -2:] == places) and np.all(of_frame == of_frame[:, :1])
    distinct = len(np.unique(of_frame[:, 0], axis=0)) == len(coords)
    return (prefix, len(coords), height, width) if whole and distinct else None


def _neighbour(layout: Layout, offset):
    """Index [.., N] of the row of the same step that lies `offset` away, and whether there is one."""
    module = static.module(layout.coords, layout.times)
    coords, steps = module.asarray(layout.coords), module.asarray(layout.times)
    away = np.zeros(coords.shape[-1], np.int32)
    away[-2:] = offset
    target = (coords + away)[..., :, None, :]
    near = (target == coords[..., None, :, :]) & (target >= 0)
    match = module.all(near, axis=-1) & (steps[..., :, None] == steps[..., None, :])
    match = match & module.all(coords >= 0, axis=-1)[..., :, None]
    return module.argmax(match, axis=-1), module.any(match, axis=-1)
