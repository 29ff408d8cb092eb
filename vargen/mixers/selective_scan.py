"""The selective state-space recurrence (Mamba, arXiv 2312.00752)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vargen.kernels import dispatch
from vargen.mixers.primitives import linear_scan

# Rows whose states [B, rows, C, S] are held at once.
CHUNK = 64


def selective_scan(x, dt, a, b, c, d=None, initial=None, chunk: int = CHUNK) -> tuple[jax.Array, jax.Array]:
    """h_n = exp(dt_n A) h_(n-1) + dt_n B_n x_n;  y_n = C_n h_n + D x_n, each channel with S states of its own.

    Equations 2a, 2b and 4 of the paper, with the discretisation of its authors' code: A by zero-order hold, B by
    Euler's rule. Chunks of rows follow one another and are computed again in the backward pass, so that states
    of more than `chunk` rows are never held. On accelerators a chunk is one `linear_scan`; elsewhere rows
    follow one another, each in one pass over its states, which then never leave the processor's cache.

    Args:
      x: [B, N, C], the input.
      dt: [B, N, C], positive: the step sizes.
      a: [C, S], negative: the diagonal of A.
      b, c: [B, N, S]: B and C, which all channels share.
      d: [C] or None: the skip.
      initial: h before the first row, [B, C, S]; zeros by default.
      chunk: rows per chunk.

    Returns:
      y [B, N, C] and h after the last row [B, C, S], both float32, as everything inside.
    """
    x, dt, a, b, c = (t.astype(jnp.float32) for t in (x, dt, a, b, c))
    (batch, n, channels), states = x.shape, a.shape[1]
    if initial is None:
        initial = jnp.zeros((batch, channels, states), jnp.float32)
    initial, chunk = initial.astype(jnp.float32), min(chunk, n)
    # Rows of dt = 0 leave the state as it is.
    pad = -n % chunk

    def split(t):
        t = jnp.pad(t, ((0, 0), (0, pad), (0, 0)))
        return jnp.moveaxis(t.reshape(batch, -1, chunk, t.shape[-1]), 1, 0)

    final, y = jax.lax.scan(lambda h, xs: _rows(a, h, *xs), initial, tuple(split(t) for t in (x, dt, b, c)))
    y = jnp.moveaxis(y, 0, 1).reshape(batch, n + pad, channels)[:, :n]
    return (y if d is None else y + d.astype(jnp.float32) * x), final


@jax.custom_vjp
def _rows(a, h, x, dt, b, c):
    """The rows of one chunk: the state after them, and y [B, n, C]."""
    return dispatch.run("selective_scan", None, FORWARD, a, h, x, dt, b, c)


def _scanned(a, h, x, dt, b, c):
    decay = jnp.exp(dt[..., None] * a)
    h = linear_scan(decay, (dt * x)[..., None] * b[:, :, None], axis=1, initial=h)
    return h[:, -1], jnp.sum(h * c[:, :, None], axis=-1)


def _row_by_row(a, h, x, dt, b, c):
    def row(h, xs):
        x, dt, b, c = xs
        h = jnp.exp(dt[..., None] * a) * h + (dt * x)[..., None] * b[:, None]
        return h, jnp.sum(h * c[:, None], axis=-1)

    h, y = jax.lax.scan(row, h, _by_row(x, dt, b, c))
    return h, jnp.moveaxis(y, 0, 1)


def _scanned_backward(a, h, x, dt, b, c, dh, dy):
    return jax.vjp(_scanned, a, h, x, dt, b, c)[1]((dh, dy))


def _row_by_row_backward(a, h, x, dt, b, c, dh, dy):
    def forward(h, xs):
        x, dt, b = xs
        return jnp.exp(dt[..., None] * a) * h + (dt * x)[..., None] * b[:, None], h

    def backward(carry, xs):
        da, dh = carry
        before, x, dt, b, c, dy = xs
        decay = jnp.exp(dt[..., None] * a)
        h = decay * before + (dt * x)[..., None] * b[:, None]
        dh = dh + dy[..., None] * c[:, None]
        through = dh * before * decay
        of_input = jnp.sum(dh * b[:, None], axis=-1)
        d_dt = jnp.sum(through * a, axis=-1) + of_input * x
        db = jnp.sum(dh * (dt * x)[..., None], axis=1)
        dc = jnp.sum(h * dy[..., None], axis=1)
        return (da + jnp.sum(through * dt[..., None], axis=0), decay * dh), (of_input * dt, d_dt, db, dc)

    _, before = jax.lax.scan(forward, h, _by_row(x, dt, b))
    rows = (before, *_by_row(x, dt, b, c, dy))
    (da, dh), grads = jax.lax.scan(backward, (jnp.zeros_like(a), dh), rows, reverse=True)
    return da, dh, *(jnp.moveaxis(g, 0, 1) for g in grads)


def _by_row(*arrays):
    return tuple(jnp.moveaxis(t, 1, 0) for t in arrays)


FORWARD = {"xla": _row_by_row, "tpu": _scanned, "gpu": _scanned}
BACKWARD = {"xla": _row_by_row_backward, "tpu": _scanned_backward, "gpu": _scanned_backward}
_rows.defvjp(
    lambda *arrays: (_rows(*arrays), arrays),
    lambda arrays, grads: dispatch.run("selective_scan", None, BACKWARD, *arrays, *grads),
)
