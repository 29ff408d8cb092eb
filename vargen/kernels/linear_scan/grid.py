"""The linear recurrence over a grid: every place hears the one above it and the one to its left."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from vargen.kernels import dispatch
from vargen.kernels.linear_scan.call import IMPLEMENTATIONS, fits, linear_scan, promoted
from vargen.kernels.linear_scan.xla import shift


def grid_scan(
    a_row,
    a_col,
    b,
    *,
    axes: tuple[int, int] = (1, 2),
    reverse: tuple[bool, bool] = (False, False),
    implementation: str | None = None,
) -> jax.Array:
    """h[i, j] = a_row[i, j] h[i-1, j] + a_col[i, j] h[i, j-1] + b[i, j], zero outside the grid.

    A linear recurrence over a grid, as in pLSTM (Pöppel et al., arXiv 2506.11997); the 2-D state-space layer
    (Baron et al., arXiv 2306.06635) couples two such states. Rows come one after another, each a `linear_scan`
    along its columns. The gradient is the same recurrence from the opposite corner; it keeps a_row, a_col and
    h. Coefficients with |a_row| + |a_col| > 1 can let h grow exponentially: the caller's to bound.

    Args:
      a_row, a_col: broadcastable to b; real or complex.
      b: [..., I, ..., J, ...], I and J along `axes`, in either order.
      axes: the axes of i (rows) and j (columns).
      reverse: per axis: from the last to the first, h[i+1] for h[i-1].
      implementation: of the scan along columns: see `linear_scan`.

    Returns:
      h, b's shape, in the dtype a_row, a_col and b promote to; carried in float32 (complex64) or wider.

    Raises:
      ValueError: shapes, dtypes or axes that don't fit; an unknown implementation.
    """
    dispatch.check("grid_scan", implementation, IMPLEMENTATIONS)
    a_row, a_col, b = (jnp.asarray(x) for x in (a_row, a_col, b))
    dtype = promoted("grid_scan", a_row, a_col, b)
    if (
        len(axes) != 2
        or any(not -b.ndim <= axis < b.ndim for axis in axes)
        or (axes[0] - axes[1]) % b.ndim == 0
    ):
        raise ValueError(f"grid_scan: axes: expected two of the {b.ndim} axes of b, found {axes}")
    axes = (axes[0] % b.ndim, axes[1] % b.ndim)
    a_row, a_col = fits("grid_scan", "a_row", a_row, b), fits("grid_scan", "a_col", a_col, b)
    if b.size == 0:
        return b.astype(dtype)
    a_row, a_col, b = (x.astype(dtype) for x in (a_row, a_col, b))
    return _scan(a_row, a_col, b, axes, (bool(reverse[0]), bool(reverse[1])), implementation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _scan(a_row, a_col, b, axes, reverse, implementation):
    wide = jnp.promote_types(b.dtype, jnp.float32)
    axis, n = axes[0], b.shape[axes[0]]
    along = axes[1] - (axes[1] > axis)

    def row(x, i):
        i = i if x.shape[axis] > 1 else 0
        return jax.lax.dynamic_index_in_dim(x, i, axis, keepdims=False).astype(wide)

    def body(step, state):
        h, out = state
        i = n - 1 - step if reverse[0] else step
        b_i = row(a_row, i) * h + row(b, i)
        h = linear_scan(row(a_col, i), b_i, axis=along, reverse=reverse[1], implementation=implementation)
        return h, jax.lax.dynamic_update_index_in_dim(out, h.astype(b.dtype), i, axis)

    first = jnp.zeros(b.shape[:axis] + b.shape[axis + 1 :], wide)
    return jax.lax.fori_loop(0, n, body, (first, jnp.zeros_like(b)))[1]


def _forward(a_row, a_col, b, axes, reverse, implementation):
    h = _scan(a_row, a_col, b, axes, reverse, implementation)
    return h, (a_row, a_col, h)


def _backward(axes, reverse, implementation, kept, dh):
    *coefficients, h = kept
    back = (not reverse[0], not reverse[1])
    later = [
        _shifted(a, axis, direction) if a.shape[axis] > 1 else a
        for a, axis, direction in zip(coefficients, axes, back, strict=True)
    ]
    db = _scan(*later, dh, axes, back, implementation)
    wide = jnp.promote_types(h.dtype, jnp.float32)
    found = []
    for a, axis, direction in zip(coefficients, axes, reverse, strict=True):
        summed = [i for i in range(h.ndim) if a.shape[i] < h.shape[i]]
        da = jnp.sum(db * _shifted(h, axis, direction).astype(wide), axis=summed, keepdims=True)
        found.append(da.astype(a.dtype))
    return *found, db


def _shifted(x, axis, reverse):
    return shift(x, jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis)), axis=axis, reverse=reverse)


_scan.defvjp(_forward, _backward)
