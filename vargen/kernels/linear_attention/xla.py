"""The chunkwise form in XLA: a scan over chunks, each a few matrix products."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vargen.kernels.linear_attention import chunk as one


def cut(x, size: int):
    """[B, N, H, D] -> [chunks, B H, size, D], padded with zero rows: k = v = log-decay = 0 change no state."""
    batch, n, heads, dim = x.shape
    x = jnp.pad(x, ((0, 0), (0, -n % size), (0, 0), (0, 0)))
    x = x.reshape(batch, -1, size, heads, dim)
    return x.transpose(1, 0, 3, 2, 4).reshape(-1, batch * heads, size, dim)


def join(x, like):
    """Undoes `cut` for an array of the shape and dtype of `like`."""
    batch, n, heads, _ = like.shape
    chunks, _, size, dim = x.shape
    x = x.reshape(chunks, batch, heads, size, dim).transpose(1, 0, 3, 2, 4)
    return x.reshape(batch, chunks * size, heads, dim)[:, :n].astype(like.dtype)


def cut_decay(g, size: int):
    """Log-decays as the chunk's functions want them: rows [1, size] per head, [size, K] per channel."""
    if g is None or g.ndim == 4:
        return None if g is None else cut(g, size)
    return cut(g[..., None], size).swapaxes(2, 3)


def join_decay(x, like):
    """Undoes `cut_decay`."""
    if like is None or like.ndim == 4:
        return None if like is None else join(x, like)
    return join(x.swapaxes(2, 3), like[..., None])[..., 0]


def fold(state):
    """[B, H, K, V] -> [B H, V, K]."""
    return state.reshape(-1, *state.shape[2:]).swapaxes(1, 2)


def unfold(state, like):
    """Undoes `fold`."""
    return state.swapaxes(1, 2).reshape(like.shape)


def _size(chunk, q, v, log_decay) -> int:
    """Positions per chunk: as measured on a CPU, gradient included, and none beyond N."""
    if chunk is None:
        chunk = 64 if q.shape[-1] * v.shape[-1] >= 4096 else 32
        chunk = chunk if log_decay is None or log_decay.ndim == 3 else chunk // 2
    return min(chunk, 1 << (q.shape[1] - 1).bit_length())


def forward(q, k, v, log_decay, state, *, scale, diagonal, dtype, chunk):
    """See `reference.forward`; `chunk` positions at a time, a power of 2, or as many as suit the shape."""
    chunk = _size(chunk, q, v, log_decay)
    compute = jnp.float32  # a CPU gains nothing from shorter products, and lacks some of them (jax 0.12)

    @jax.vmap
    def step(state, q, k, v, g):
        a, inward, outward, total = one.factors(q, k, g, scale=scale, diagonal=diagonal, dtype=compute)
        out = one.output(a, inward, v, state, compute).astype(dtype)
        return one.advance(outward, total, v, state, compute), out

    rows = (*(cut(x, chunk) for x in (q, k, v)), cut_decay(log_decay, chunk))
    end, out = jax.lax.scan(lambda state, row: step(state, *row), fold(state), rows)
    return join(out, jax.ShapeDtypeStruct(v.shape, dtype)), unfold(end, state)


def backward(q, k, v, log_decay, state, out_grad, state_grad, *, scale, diagonal, dtype, chunk):
    """See `reference.backward`: the chunks' first states once more, then the chunks in reverse."""
    chunk = _size(chunk, q, v, log_decay)
    compute = jnp.float32  # a CPU gains nothing from shorter products, and lacks some of them (jax 0.12)

    @jax.vmap
    def again(state, k, v, g):
        _, suffix, total = one.ends(g, chunk, compute)
        return one.advance(k * suffix, total, v, state, compute), state

    @jax.vmap
    def step(after, q, k, v, g, before, grad):
        options = dict(scale=scale, diagonal=diagonal, dtype=compute)
        a, inward, outward, total = one.factors(q, k, g, **options)
        grads = one.products_backward(v, before, grad, after, g, compute)
        dq, dk, dg = one.factors_backward(q, k, g, grads, **options)
        dv = one.value_backward(a, outward, grad, after, compute)
        return one.advance(inward, total, grad, after, compute), (dq, dk, dv, dg)

    rows = (*(cut(x, chunk) for x in (q, k, v)), cut_decay(log_decay, chunk))
    _, states = jax.lax.scan(lambda state, row: again(state, *row), fold(state), rows[1:])
    rows = (*rows, states, cut(out_grad, chunk))
    first, (dq, dk, dv, dg) = jax.lax.scan(
        lambda after, row: step(after, *row), fold(state_grad), rows, reverse=True
    )
    return join(dq, q), join(dk, k), join(dv, v), join_decay(dg, log_decay), unfold(first, state)
