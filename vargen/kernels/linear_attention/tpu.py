"""Pallas kernels for TPU: a grid of (batch and head, chunk), the state in VMEM from one chunk to the next."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vargen.kernels.linear_attention import chunk as one
from vargen.kernels.linear_attention.xla import cut, cut_decay, fold, join, join_decay, unfold


def _size(chunk, log_decay) -> int:
    """Positions per chunk: the matrix unit's 128, less where a decay per channel has log2(size) products."""
    if chunk is None:
        return 128 if log_decay is None or log_decay.ndim == 3 else 64
    return max(chunk, 16)


def _call(body, grid, inputs, outputs, *, reverse=False, scratch=(), interpret=False):
    """Calls `body` for every (batch and head, chunk); arrays [chunks, B H, rows, columns] or [B H, V, K]."""

    def spec(x):
        if len(x.shape) == 3:
            return pl.BlockSpec((None, *x.shape[1:]), lambda b, c: (b, 0, 0))
        last = x.shape[0] - 1
        return pl.BlockSpec((None, None, *x.shape[2:]), lambda b, c: (last - c if reverse else c, b, 0, 0))

    return pl.pallas_call(
        body,
        grid=grid,
        in_specs=jax.tree.map(spec, inputs),
        out_specs=jax.tree.map(spec, outputs),
        out_shape=outputs,
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
    )(*inputs)


def forward(q, k, v, log_decay, state, *, scale, diagonal, dtype, chunk, interpret=False):
    """See `reference.forward`."""
    compute = jnp.result_type(q, k, v)
    size = _size(chunk, log_decay)

    def body(q, k, v, g, first, out, state):
        @pl.when(pl.program_id(1) == 0)
        def _():
            state[...] = first[...]

        a, inward, outward, total = one.factors(
            q[...], k[...], _read(g), scale=scale, diagonal=diagonal, dtype=compute
        )
        out[...] = one.output(a, inward, v[...], state[...], compute).astype(out.dtype)
        state[...] = one.advance(outward, total, v[...], state[...], compute)

    rows = (*(cut(x, size) for x in (q, k, v)), cut_decay(log_decay, size), fold(state))
    outputs = (jax.ShapeDtypeStruct(rows[2].shape, dtype), jax.ShapeDtypeStruct(rows[4].shape, jnp.float32))
    out, end = _call(body, rows[0].shape[1::-1], rows, outputs, interpret=interpret)
    return join(out, jax.ShapeDtypeStruct(v.shape, dtype)), unfold(end, state)


def backward(
    q, k, v, log_decay, state, out_grad, state_grad, *, scale, diagonal, dtype, chunk, interpret=False
):
    """See `reference.backward`: the chunks' first states once more, then the chunks in reverse."""
    compute = jnp.result_type(q, k, v)
    size = _size(chunk, log_decay)

    def again(k, v, g, first, states, state):
        @pl.when(pl.program_id(1) == 0)
        def _():
            state[...] = first[...]

        states[...] = state[...]
        _, suffix, total = one.ends(_read(g), size, compute)
        state[...] = one.advance(k[...] * suffix, total, v[...], state[...], compute)

    def body(q, k, v, g, before, grad, last, dq, dk, dv, dg, after):
        @pl.when(pl.program_id(1) == 0)
        def _():
            after[...] = last[...]

        q, k, v, g, grad, later = q[...], k[...], v[...], _read(g), grad[...], after[...]
        options = dict(scale=scale, diagonal=diagonal, dtype=compute)
        a, inward, outward, total = one.factors(q, k, g, **options)
        grads = one.products_backward(v, before[...], grad, later, g, compute)
        grads = one.factors_backward(q, k, g, grads, **options)
        for ref, x in zip((dq, dk, dg), grads, strict=True):
            if ref is not None:
                ref[...] = x.astype(ref.dtype)
        dv[...] = one.value_backward(a, outward, grad, later, compute).astype(dv.dtype)
        after[...] = one.advance(inward, total, grad, later, compute)

    q_, k_, v_ = (cut(x, size) for x in (q, k, v))
    g_, first = cut_decay(log_decay, size), fold(state)
    grid = q_.shape[1::-1]
    states = _call(
        again,
        grid,
        (k_, v_, g_, first),
        jax.ShapeDtypeStruct((q_.shape[0], *first.shape), jnp.float32),
        scratch=[pltpu.VMEM(first.shape[1:], jnp.float32)],
        interpret=interpret,
    )
    inputs = (q_, k_, v_, g_, states, cut(out_grad, size), fold(state_grad))
    outputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (q_, k_, v_, g_, first))
    dq, dk, dv, dg, ds = _call(body, grid, inputs, outputs, reverse=True, interpret=interpret)
    return join(dq, q), join(dk, k), join(dv, v), join_decay(dg, log_decay), unfold(ds, state)


def _read(ref):
    return None if ref is None else ref[...]
