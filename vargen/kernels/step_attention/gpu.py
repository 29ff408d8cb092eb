"""Step-masked attention for CUDA GPUs (compute capability 8.0 or more), in Pallas on Triton.

One program per block of queries walks the blocks of keys that some of them see (and one per block of keys, for
their gradients, the blocks of queries), in three stretches: masked, whole, masked. Arrays are read as the
public call has them, [B, N, H, D]; no copy is made but for padding.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.step_attention.spans import edges

LOG2_E = 1.4426950408889634  # the hardware's exponential has base 2


def attend(q, k, v, low, high, *, scale: float, interpret: bool = False):
    """As `reference.attend`."""
    batch, n, heads, dim = q.shape
    plan = _Plan(low, high, q, k, interpret)
    out, lse = plan.call(
        functools.partial(_forward_kernel, scale=scale, k_block=plan.k_block),
        grid=(batch, heads, plan.n // plan.q_block),
        in_specs=[
            plan.table(axis=2),
            plan.spans(block=True),
            plan.queries(block=True),
            plan.keys(block=False),
            plan.keys(block=False),
        ],
        out_specs=[plan.queries(block=True), plan.stats(block=True)],
        out_shape=[
            jax.ShapeDtypeStruct((batch, plan.n, heads, plan.dim), v.dtype),
            jax.ShapeDtypeStruct((batch, heads, plan.n), jnp.float32),
        ],
    )(plan.edges(of_keys=False), plan.bounds, plan.pad_q(q), plan.pad_k(k), plan.pad_k(v))
    return out[:, :n, :, :dim], lse[..., :n]


def backward(q, k, v, out, lse, d_out, d_lse, low, high, *, scale: float, interpret: bool = False):
    """Gradients with respect to q, k and v: one walk by queries, one by keys (FlashAttention-2, arXiv 2307.08691)."""
    (batch, n, heads, dim), (m, groups) = q.shape, k.shape[1:3]
    plan = _Plan(low, high, q, k, interpret)
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).swapaxes(1, 2) - d_lse
    lse = LOG2_E * jnp.where(jnp.isfinite(lse), lse, 0.0)
    lse, delta = (jnp.pad(x, ((0, 0), (0, 0), (0, plan.n - n))) for x in (lse, delta))
    arrays = plan.bounds, lse, delta, plan.pad_q(q), plan.pad_q(d_out), plan.pad_k(k), plan.pad_k(v)
    dq = plan.call(
        functools.partial(_query_kernel, scale=scale, k_block=plan.k_block),
        grid=(batch, heads, plan.n // plan.q_block),
        in_specs=[
            plan.table(axis=2),
            plan.spans(block=True),
            *[plan.stats(block=True)] * 2,
            *[plan.queries(block=True)] * 2,
            *[plan.keys(block=False)] * 2,
        ],
        out_specs=plan.queries(block=True),
        out_shape=jax.ShapeDtypeStruct((batch, plan.n, heads, plan.dim), q.dtype),
    )(plan.edges(of_keys=False), *arrays)
    repeat = heads // groups
    dk, dv = plan.call(
        functools.partial(_key_kernel, scale=scale, q_block=plan.q_block, repeat=repeat),
        grid=(batch, groups, plan.m // plan.k_block),
        in_specs=[
            plan.table(axis=2),
            plan.spans(block=False),
            *[plan.group_stats(repeat)] * 2,
            *[plan.group_queries(repeat)] * 2,
            *[plan.group_keys()] * 2,
        ],
        out_specs=[plan.group_keys()] * 2,
        out_shape=[jax.ShapeDtypeStruct((batch, plan.m, groups, plan.dim), x.dtype) for x in (k, v)],
    )(plan.edges(of_keys=True), *arrays)
    return dq[:, :n, :, :dim], dk[:, :m, :, :dim], dv[:, :m, :, :dim]


def _forward_kernel(edges, bounds, q, k, v, out, lse, *, scale, k_block):
    queries, low, high = q[...], bounds[0][:, None], bounds[1][:, None]
    rows = queries.shape[0]

    def visit(j, carry, masked):
        acc, peak, total = carry
        keys = pl.ds(j * k_block, k_block)
        logits = _logits(queries, k[keys, :], low, high, j * k_block, scale * LOG2_E, masked)
        new = jnp.maximum(peak, jnp.max(logits, axis=1))
        weights = jnp.exp2(logits - new[:, None])
        keep = jnp.exp2(peak - new)
        acc = acc * keep[:, None] + _dot(weights.astype(v.dtype), v[keys, :])
        return acc, new, total * keep + jnp.sum(weights, axis=1)

    empty = jnp.full((rows,), -1e30, jnp.float32), jnp.zeros((rows,), jnp.float32)
    acc, peak, total = _stretches(edges, visit, (jnp.zeros(queries.shape, jnp.float32), *empty))
    some = total > 0
    total = jnp.where(some, total, 1.0)
    out[...] = (acc / total[:, None]).astype(out.dtype)
    lse[...] = jnp.where(some, (peak + jnp.log2(total)) / LOG2_E, -jnp.inf)


def _query_kernel(edges, bounds, lse, delta, q, d_out, k, v, dq, *, scale, k_block):
    queries, d_rows, low, high = q[...], d_out[...], bounds[0][:, None], bounds[1][:, None]
    lse, delta = lse[...][:, None], delta[...][:, None]

    def visit(j, acc, masked):
        keys = pl.ds(j * k_block, k_block)
        k_j = k[keys, :]
        logits = _logits(queries, k_j, low, high, j * k_block, scale * LOG2_E, masked)
        d_logits = jnp.exp2(logits - lse) * (_dot(d_rows, v[keys, :].T) - delta)
        return acc + _dot(d_logits.astype(k_j.dtype), k_j)

    acc = _stretches(edges, visit, jnp.zeros(queries.shape, jnp.float32))
    dq[...] = (scale * acc).astype(dq.dtype)


def _key_kernel(edges, bounds, lse, delta, q, d_out, k, v, dk, dv, *, scale, q_block, repeat):
    keys, values = k[...], v[...]
    first = pl.program_id(2) * keys.shape[0]
    zeros = jnp.zeros(keys.shape, jnp.float32)

    def head(r, carry):
        def visit(i, carry, masked):
            acc_k, acc_v = carry
            rows = pl.ds(i * q_block, q_block)
            queries, d_rows = q[rows, r, :], d_out[rows, r, :]
            low, high = bounds[0, rows][None], bounds[1, rows][None]
            logits = _logits(keys, queries, low, high, first, scale * LOG2_E, masked, axis=0)
            weights = jnp.exp2(logits - lse[r, rows][None])
            d_logits = weights * (_dot(values, d_rows.T) - delta[r, rows][None])
            acc_v = acc_v + _dot(weights.astype(d_rows.dtype), d_rows)
            return acc_k + _dot(d_logits.astype(queries.dtype), queries), acc_v

        return _stretches(edges, visit, carry)

    acc_k, acc_v = jax.lax.fori_loop(0, repeat, head, (zeros, zeros))
    dk[...] = (scale * acc_k).astype(dk.dtype)
    dv[...] = acc_v.astype(dv.dtype)


def _stretches(edges, visit, carry):
    """Visits blocks start to stop, masked but from full_start to full_stop."""
    start, full_start, full_stop, stop = (edges[i] for i in range(4))
    for a, b, masked in ((start, full_start, True), (full_start, full_stop, False), (full_stop, stop, True)):
        carry = jax.lax.fori_loop(a, b, functools.partial(visit, masked=masked), carry)
    return carry


def _logits(a, b, low, high, first, scale, masked, axis: int = 1):
    """scale a b^T, float32; the keys, numbered from `first`, lie along `axis`."""
    logits = scale * _dot(a, b.T)
    if not masked:
        return logits
    index = first + jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis)
    return jnp.where((low <= index) & (index < high), logits, -jnp.inf)


def _dot(a, b):
    """Product in float32; of float32 inputs exact (no TF32)."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


class _Plan:
    """Padded sizes, blocks and block specifications of one call."""

    def __init__(self, low, high, q, k, interpret):
        n, m, dim = q.shape[1], k.shape[1], q.shape[3]
        self.dim = max(16, 1 << (dim - 1).bit_length())  # powers of two alone
        self.q_block, self.k_block = block_sizes(n, m, self.dim, q.dtype)
        self.n, self.m = n + -n % self.q_block, m + -m % self.k_block
        self.heads_per_group = q.shape[2] // k.shape[2]
        module = np if isinstance(low, np.ndarray) else jnp
        pad = ((0, 0), (0, self.n - n))
        self.low, self.high = (module.pad(x.reshape(-1, n), pad).astype(np.int32) for x in (low, high))
        self.bounds = jnp.stack([self.low, self.high], axis=1)
        self.examples = self.bounds.shape[0]
        self.interpret = interpret

    def call(self, kernel, **options):
        # Large heads keep more of the accumulators in registers: more warps share them.
        params = plgpu.CompilerParams(num_warps=4 if self.dim <= 64 else 8, num_stages=2)
        return pl.pallas_call(kernel, compiler_params=params, interpret=self.interpret, **options)

    def edges(self, of_keys: bool):
        """int32 [1 or B, blocks, 4]: see `spans.edges`."""
        blocks = self.m // self.k_block
        return jnp.asarray(edges(self.low, self.high, self.q_block, self.k_block, blocks, of_keys=of_keys))

    def pad_q(self, x):
        return jnp.pad(x, ((0, 0), (0, self.n - x.shape[1]), (0, 0), (0, self.dim - x.shape[3])))

    def pad_k(self, x):
        return jnp.pad(x, ((0, 0), (0, self.m - x.shape[1]), (0, 0), (0, self.dim - x.shape[3])))

    # Block specifications, of grids (batch, query head, block) or (batch, key head, block).

    def _example(self, b):
        return b if self.examples > 1 else 0

    def table(self, axis):
        return pl.BlockSpec((None, None, 4), lambda *i: (self._example(i[0]), i[axis], 0))

    def spans(self, block):
        size = self.q_block if block else self.n
        return pl.BlockSpec((None, 2, size), lambda b, h, i: (self._example(b), 0, i if block else 0))

    def queries(self, block):
        size = self.q_block if block else self.n
        return pl.BlockSpec((None, size, None, self.dim), lambda b, h, i: (b, i if block else 0, h, 0))

    def stats(self, block):
        size = self.q_block if block else self.n
        return pl.BlockSpec((None, None, size), lambda b, h, i: (b, h, i if block else 0))

    def keys(self, block):
        size = self.k_block if block else self.m
        of = self.heads_per_group
        return pl.BlockSpec((None, size, None, self.dim), lambda b, h, i: (b, i if block else 0, h // of, 0))

    def group_queries(self, repeat):
        return pl.BlockSpec((None, self.n, repeat, self.dim), lambda b, g, i: (b, 0, g, 0))

    def group_stats(self, repeat):
        return pl.BlockSpec((None, repeat, self.n), lambda b, g, i: (b, g, 0))

    def group_keys(self):
        return pl.BlockSpec((None, self.k_block, None, self.dim), lambda b, g, i: (b, i, g, 0))


def block_sizes(n: int, m: int, dim: int, dtype) -> tuple[int, int]:
    """Sizes of the blocks of queries and keys: less of each where rows are wide, so that two stages fit on chip."""
    wide = dim * jnp.dtype(dtype).itemsize
    q_block, k_block = (128, 64) if wide <= 256 else (64, 32)
    shrink = lambda size, of: min(size, max(16, 1 << (of - 1).bit_length()))  # noqa: E731
    return shrink(q_block, n), shrink(k_block, m)
