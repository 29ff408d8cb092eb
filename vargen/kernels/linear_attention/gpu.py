"""Pallas kernels for NVIDIA GPUs (Triton): the chunks' first states in sequence, everything else in parallel.

One kernel that carries the state would keep only B H V / 64 programs busy, 16 on 132 multiprocessors for four heads
of width 256. So the recurrence alone runs in sequence, over tiles of the state that don't need each other, and the
rest, most of the arithmetic, is one program per chunk and tile of values or (gradients of q, k and decays) of keys.
The states between are [chunks, B H, V, K] in HBM and are computed again for the gradient. Sizes, warps and stages
are what an H100's registers hold (compiled for sm_90a).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.linear_attention import chunk as one
from vargen.kernels.linear_attention.xla import cut, cut_decay, fold, join, join_decay, unfold


def _per_channel(g) -> bool:
    return g is not None and g.ndim == 4


def _size(chunk, q, log_decay) -> int:
    """Positions per chunk: what fits the registers, with the decays' matrices or without tensor cores."""
    if chunk is not None:
        return max(chunk, 16)
    return 16 if q.dtype == jnp.float32 else 32 if _per_channel(log_decay) else 64


def _tile(width: int, keys: int, dtype) -> int:
    """Keys or values per tile."""
    return min(width, 32 if dtype == jnp.float32 and keys > 64 else 64)


def _whole(x, axes=(-1,)):
    """Zeros appended until the axes are powers of 2, at least 16: Triton knows no other sizes."""
    pads = [(0, 0)] * x.ndim
    for axis in axes:
        pads[axis] = (0, max(16, 1 << (x.shape[axis] - 1).bit_length()) - x.shape[axis])
    return jnp.pad(x, pads)


def _prepare(q, k, v, log_decay, state, chunk):
    size = _size(chunk, q, log_decay)
    g = cut_decay(log_decay, size)
    g = _whole(g) if _per_channel(log_decay) else g
    return (*(_whole(cut(x, size)) for x in (q, k, v)), g, _whole(fold(state), (-1, -2)))


def _call(body, grid, arrays, outputs, interpret, num_warps: int, num_stages: int = 2):
    """`arrays` and `outputs` are pairs (array, BlockSpec); an absent decay is (None, None)."""
    return pl.pallas_call(
        body,
        grid=grid,
        in_specs=[spec for _, spec in arrays],
        out_specs=[spec for _, spec in outputs],
        out_shape=[shape for shape, _ in outputs],
        compiler_params=plgpu.CompilerParams(num_warps=num_warps, num_stages=num_stages),
        interpret=interpret,
    )(*(x for x, _ in arrays))


def _warps(size: int, log_decay) -> int:
    """Of a program per chunk: few, so that two share a multiprocessor, unless the decays' matrices fill it."""
    return 8 if _per_channel(log_decay) and size > 16 else 4


def _read(ref, *index):
    return None if ref is None else ref[index or ...]


def _states(x, y, g, first, *, scale, reverse, dtype, states_dtype, interpret):
    """All states that chunks meet, [chunks, B H, V, K], and the one after the last (of gradients, in reverse).

    Args:
      x: k, or in reverse q.
      y: v, or in reverse the gradient of o.
      g: log-decays or None.
      first: [B H, V, K].
      scale: factor on x.
      dtype: of products.
      states_dtype: of the states met.
    """
    (chunks, heads, size, width), depth = x.shape, y.shape[-1]
    tile_k, tile_v = _tile(width, width, dtype), _tile(depth, width, dtype)

    def recurrence(x, y, g, first, states, last):
        def step(n, state):
            c = chunks - 1 - n if reverse else n
            states[c] = state.astype(states.dtype)
            prefix, suffix, total = one.ends(_read(g, c), size, dtype)
            weighted = x[c].astype(jnp.float32) * scale * (prefix if reverse else suffix)
            return one.advance(weighted, total, y[c], state, dtype)

        last[...] = jax.lax.fori_loop(0, chunks, step, first[...])

    def rows(x, tile, index):
        return x, pl.BlockSpec((chunks, None, x.shape[2], tile), index)

    def per_key(b, i, j):
        return 0, b, 0, j

    decay = (None, None)
    if g is not None:
        channels = g.shape[2] == size
        decay = rows(g, tile_k if channels else size, per_key if channels else lambda b, i, j: (0, b, 0, 0))
    tile = pl.BlockSpec((None, tile_v, tile_k), lambda b, i, j: (b, i, j))
    tiles = pl.BlockSpec((chunks, None, tile_v, tile_k), lambda b, i, j: (0, b, i, j))
    return _call(
        recurrence,
        (heads, depth // tile_v, width // tile_k),
        [rows(x, tile_k, per_key), rows(y, tile_v, lambda b, i, j: (0, b, 0, i)), decay, (first, tile)],
        [
            (jax.ShapeDtypeStruct((chunks, *first.shape), states_dtype), tiles),
            (jax.ShapeDtypeStruct(first.shape, jnp.float32), tile),
        ],
        interpret,
        num_warps=8,
        num_stages=4,  # Nothing else hides the wait for memory.
    )


def _per_chunk(x, tile=None, axis=-1):
    """An array and its block of one chunk (second index of the grid) and head (first), maybe tiled (third)."""
    if x is None:
        return None, None
    shape = list(x.shape[2:])
    if tile is None:
        return x, pl.BlockSpec((None, None, *shape), lambda b, c, *_: (c, b, 0, 0))
    shape[axis] = tile
    index = (lambda b, c, i: (c, b, i, 0)) if axis == -2 else (lambda b, c, i: (c, b, 0, i))
    return x, pl.BlockSpec((None, None, *shape), index)


def forward(q, k, v, log_decay, state, *, scale, diagonal, dtype, chunk, interpret=False):
    """See `reference.forward`."""
    compute = jnp.result_type(q, k, v)
    q_, k_, v_, g_, first = _prepare(q, k, v, log_decay, state, chunk)
    states, last = _states(
        # The output rounds them to this type in any case.
        k_,
        v_,
        g_,
        first,
        scale=1.0,
        reverse=False,
        dtype=compute,
        states_dtype=compute,
        interpret=interpret,
    )

    def output(q, k, v, g, before, out):
        a, inward, _, _ = one.factors(q[...], k[...], _read(g), scale=scale, diagonal=diagonal, dtype=compute)
        out[...] = one.output(a, inward, v[...], before[...], compute).astype(out.dtype)

    (chunks, heads, size, width), depth = q_.shape, v_.shape[-1]
    tile = _tile(depth, width, compute)
    rows = [_per_chunk(x) for x in (q_, k_, g_)]
    out = jax.ShapeDtypeStruct(v_.shape, dtype)
    (out,) = _call(
        output,
        (heads, chunks, depth // tile),
        [*rows[:2], _per_chunk(v_, tile), rows[2], _per_chunk(states, tile, -2)],
        [_per_chunk(out, tile)],
        interpret,
        num_warps=_warps(size, log_decay),
    )
    out = join(out[..., : v.shape[-1]], jax.ShapeDtypeStruct(v.shape, dtype))
    return out, unfold(last[:, : v.shape[-1], : k.shape[-1]], state)


def backward(
    q, k, v, log_decay, state, out_grad, state_grad, *, scale, diagonal, dtype, chunk, interpret=False
):
    """See `reference.backward`: states forwards, their gradients in reverse, then every chunk by itself."""
    compute = jnp.result_type(q, k, v)
    q_, k_, v_, g_, first = _prepare(q, k, v, log_decay, state, chunk)
    grad = _whole(cut(out_grad, q_.shape[2]))
    # The decay's gradient multiplies them before any rounding.
    states_dtype = compute if g_ is None else jnp.float32
    run = functools.partial(_states, dtype=compute, states_dtype=states_dtype, interpret=interpret)
    states, _ = run(k_, v_, g_, first, scale=1.0, reverse=False)
    afters, ds = run(q_, grad, g_, _whole(fold(state_grad), (-1, -2)), scale=scale, reverse=True)
    (chunks, heads, size, width), depth = q_.shape, v_.shape[-1]
    tile_k, tile_v = _tile(width, width, compute), _tile(depth, width, compute)
    num_warps = _warps(size, log_decay)
    options = dict(scale=scale, diagonal=diagonal, dtype=compute)

    def values(q, k, g, grad, after, dv):
        a, _, outward, _ = one.factors(q[...], k[...], _read(g), **options)
        dv[...] = one.value_backward(a, outward, grad[...], after[...], compute).astype(dv.dtype)

    (dv,) = _call(
        values,
        (heads, chunks, depth // tile_v),
        [*(_per_chunk(x) for x in (q_, k_, g_)), _per_chunk(grad, tile_v), _per_chunk(afters, tile_v, -2)],
        [_per_chunk(jax.ShapeDtypeStruct(v_.shape, v_.dtype), tile_v)],
        interpret,
        num_warps,
    )

    def keys(q, k, v, g, before, grad, after, dq, dk, dg):
        decay = _read(g)

        def part(i, sums):
            at = pl.ds(i * tile_v, tile_v)
            new = one.products_backward(v[:, at], before[at], grad[:, at], after[at], decay, compute)
            return jax.tree.map(jnp.add, sums, new)

        shapes = [(size, size), (size, tile_k), (size, tile_k)]
        sums = [jnp.zeros(shape, jnp.float32) for shape in shapes]
        total = None if dg is None else jnp.zeros((1, 1 if dg.shape[0] == 1 else tile_k), jnp.float32)
        sums = jax.lax.fori_loop(0, depth // tile_v, part, (*sums, total))
        for ref, x in zip((dq, dk, dg), one.factors_backward(q[...], k[...], decay, sums, **options)):
            if ref is not None:
                ref[...] = x.astype(ref.dtype)

    rows = [_per_chunk(x, tile_k) for x in (q_, k_)]
    decay = d_decay = None, None
    if _per_channel(log_decay):
        decay = d_decay = _per_chunk(g_, tile_k)
    elif g_ is not None:
        # Every tile of keys has its share.
        decay, shape = _per_chunk(g_), (width // tile_k, *g_.shape)
        d_decay = (
            jax.ShapeDtypeStruct(shape, jnp.float32),
            pl.BlockSpec((None, None, None, 1, size), lambda b, c, i: (i, c, b, 0, 0)),
        )
    outputs = [
        (None if x is None else jax.ShapeDtypeStruct(x.shape, x.dtype), spec) for x, spec in (*rows, d_decay)
    ]
    states, afters = (_per_chunk(x, tile_k) for x in (states, afters))
    dq, dk, dg = _call(
        keys,
        (heads, chunks, width // tile_k),
        [*rows, _per_chunk(v_), decay, states, _per_chunk(grad), afters],
        outputs,
        interpret,
        num_warps,
    )
    if g_ is not None:
        dg = dg[..., : k.shape[-1]] if _per_channel(log_decay) else jnp.sum(dg, axis=0)
    ds = unfold(ds[:, : v.shape[-1], : k.shape[-1]], state)
    dq, dk, dv = (x[..., : y.shape[-1]] for x, y in ((dq, q), (dk, k), (dv, v)))
    return join(dq, q), join(dk, k), join(dv, v), join_decay(dg, log_decay), ds
