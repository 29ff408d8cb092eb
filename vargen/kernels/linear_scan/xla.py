"""Linear scans in XLA: one row after another, by doubling, and in chunks.

Every implementation of this folder has one form: `f(a, b, initial, *, reverse, late)` with
  b: [..., N, C], the time axis last but one; real or complex;
  a: b's rank and dtype, each axis b's or 1;
  initial: [..., C], float32 or wider;
  reverse: from the last row to the first;
  late: the carry decays after a row instead of before it: h_t = b_t + a_(t-1) h_(t-1) and h_1 = b_1 + initial,
    the form of the adjoint, which so needs no shifted copy of a.
It returns h, b's shape and dtype; carries have initial's dtype.

On two CPU cores at (2, 4096, 512) in float32 `chunked` is level with `sequential`; `lax.scan` along a transposed axis
takes 3.2 to 3.4 times and `associative` 5.2 to 5.6 times as long (benchmarks/results/kernels.json, shape cpu).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Rows per iteration (more gain nothing, one makes the gradient slower), and rows per chunk.
UNROLL, CHUNK = 4, 64


def sequential(a, b, initial, *, reverse: bool, late: bool, unroll: int = UNROLL) -> jax.Array:
    """One row after another, read and written in place: no transposed copy of anything."""

    def step(carry, a, b):
        h = b + carry if late else a * carry + b
        return (a * h if late else h), h

    return _loop(step, a, b, initial, reverse, unroll)


def associative(a, b, initial, *, reverse: bool, late: bool) -> jax.Array:
    """By doubling (`jax.lax.associative_scan`): log2(N) passes over everything."""
    dtype, axis = b.dtype, b.ndim - 2
    a, b = a.astype(initial.dtype), b.astype(initial.dtype)
    if a.shape[axis] == 1:
        a = jnp.broadcast_to(a, (*a.shape[:axis], b.shape[axis], a.shape[-1]))
    if late:
        a = shift(a, jnp.ones_like(jax.lax.slice_in_dim(a, 0, 1, axis=axis)), axis=axis, reverse=reverse)

    def combine(x, y):
        return x[0] * y[0], y[0] * x[1] + y[1]

    decay, h = jax.lax.associative_scan(combine, (a, b), reverse=reverse, axis=axis)
    return (decay * initial[..., None, :] + h).astype(dtype)


def chunked(a, b, initial, *, reverse: bool, late: bool, chunk: int = CHUNK) -> jax.Array:
    """All chunks side by side, twice: their decays and ends from zero; then, with what each is handed, h.

    Only products of a are formed, so that it is as stable as the recurrence; what is kept beside h is one
    row in `chunk` of it.
    """
    n, axis = b.shape[-2], b.ndim - 2
    chunk = min(chunk, n)
    pad = -n % chunk

    def split(x):
        if x.shape[axis] == 1 and n > 1:
            return x[..., None, :, :]
        # Padding comes where the scan ends.
        x = jnp.pad(x, [(0, 0)] * axis + [(pad, 0) if reverse else (0, pad), (0, 0)])
        return x.reshape(*x.shape[:axis], -1, chunk, x.shape[-1])

    a_chunks, b_chunks = split(a), split(b)

    def summary(carry, a, b):
        decay, end = carry
        return (a * decay, a * (end + b) if late else a * end + b), None

    like = jnp.zeros((*b_chunks.shape[:-2], b.shape[-1]), initial.dtype)
    decay, end = _loop(summary, a_chunks, b_chunks, (jnp.ones_like(like), like), reverse, UNROLL)
    handed = sequential(decay, end, initial, reverse=reverse, late=False)
    handed = shift(handed, initial[..., None, :], axis=axis, reverse=reverse)
    h = sequential(a_chunks, b_chunks, handed, reverse=reverse, late=late)
    h = h.reshape(*b.shape[:-2], n + pad, b.shape[-1])
    return jax.lax.slice_in_dim(h, pad, n + pad, axis=axis) if reverse else h[..., :n, :]


def shift(x, first, *, axis: int, reverse: bool) -> jax.Array:
    """x one place later in the scan's direction, `first` (one place long) in front; x's shape."""
    n = x.shape[axis]
    if reverse:
        return jnp.concatenate([jax.lax.slice_in_dim(x, 1, n, axis=axis), first], axis)
    return jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)


def _loop(step, a, b, carry, reverse, unroll):
    """step(carry, a_t, b_t) -> (carry, h_t or None) over the rows; all h_t, or the last carry where None."""
    n, axis = b.shape[-2], b.ndim - 2
    wide = jax.tree.leaves(carry)[0].dtype

    def row(x, t):
        t = t if x.shape[axis] > 1 else 0
        return jax.lax.dynamic_index_in_dim(x, t, axis, keepdims=False).astype(wide)

    def body(i, state):
        carry, out = state
        t = n - 1 - i if reverse else i
        carry, h = step(carry, row(a, t), row(b, t))
        if h is not None:
            out = jax.lax.dynamic_update_index_in_dim(out, h.astype(b.dtype), t, axis)
        return carry, out

    keeps = jax.eval_shape(step, carry, row(a, 0), row(b, 0))[1] is not None
    out = jnp.zeros_like(b) if keeps else None
    carry, out = jax.lax.fori_loop(0, n, body, (carry, out), unroll=min(unroll, n))
    return out if keeps else carry
