"""Step-masked attention for TPUs: flash attention over the visible pairs of blocks, in one walk.

The grid's last axis walks a list of (block of queries, block of keys) that is prefetched into scalar memory; where
steps are known before tracing it holds the visible pairs alone. Logits are kept transposed, keys down and
queries across, so that spans, peaks and sums of the queries are rows of lanes, and all products but two take
their operands as they lie.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vargen.kernels import static
from vargen.kernels.dropout import drop
from vargen.kernels.step_attention.spans import ACTIVE, FIRST, LAST, PARTIAL, edges, visits

LANES = 128
NEVER = -1e30  # below every logit, and finite: differences with it stay numbers
SIZES = (128, 256, 384, 512)
# What a visit costs beside its work, in pairs of query and key: an estimate (a grid step's third of a microsecond,
# at the speed of a v5e's vector unit) that chooses between many small and few large blocks.
VISIT = 256 * 256


def attend(q, k, v, low, high, words=None, *, scale: float, dropout: float = 0.0, interpret: bool = False):
    """As `reference.attend`."""
    (batch, n, heads, dim), (m, groups) = q.shape, k.shape[1:3]
    plan = _Plan(low, high, n, m)
    walk = plan.walk(of_keys=False)
    row = lambda b, h, p, walk: (b, h, 0, walk[_of(walk, b), 0, p])  # noqa: E731
    key = lambda b, h, p, walk: (b, _group(h, heads // groups), walk[_of(walk, b), 1, p], 0)  # noqa: E731
    out, lse = pl.pallas_call(
        functools.partial(_forward_kernel, scale=scale, dropout=dropout),
        out_shape=[
            jax.ShapeDtypeStruct((batch, heads, dim, plan.n), v.dtype),
            jax.ShapeDtypeStruct((batch, heads, 1, plan.n), jnp.float32),
        ],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(batch, heads, walk.shape[-1]),
            in_specs=[
                pl.BlockSpec((1, 2, plan.q_block), lambda b, h, p, walk: plan.bounds_at(b, walk, p)),
                pl.BlockSpec((1, 1, dim, plan.q_block), row),
                pl.BlockSpec((1, 1, plan.k_block, dim), key),
                pl.BlockSpec((1, 1, plan.k_block, dim), key),
                *[pl.BlockSpec((1, 1, 1, plan.q_block), row)] * (words is not None),
            ],
            out_specs=[
                pl.BlockSpec((1, 1, dim, plan.q_block), row),
                pl.BlockSpec((1, 1, 1, plan.q_block), row),
            ],
            scratch_shapes=[pltpu.VMEM((dim, plan.q_block), jnp.float32)]
            + [pltpu.VMEM((1, plan.q_block), jnp.float32)] * 2,
        ),
        compiler_params=_PARAMS,
        cost_estimate=plan.cost(walk, q, products=2),
        interpret=interpret,
    )(walk, plan.bounds, plan.queries(q), plan.keys(k), plan.keys(v), *plan.stats(words))
    return out[..., :n].transpose(0, 3, 1, 2), lse[:, :, 0, :n]


def backward(
    q,
    k,
    v,
    out,
    lse,
    d_out,
    d_lse,
    low,
    high,
    words=None,
    *,
    scale: float,
    dropout: float = 0.0,
    interpret: bool = False,
):
    """Gradients with respect to q, k and v: one walk by queries, one by keys (FlashAttention-2, arXiv 2307.08691)."""
    (batch, n, heads, dim), (m, groups) = q.shape, k.shape[1:3]
    plan = _Plan(low, high, n, m)
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).swapaxes(1, 2) - d_lse
    lse = jnp.where(jnp.isfinite(lse), lse, 0.0)
    rows = plan.queries(q), plan.queries(d_out), plan.keys(k), plan.keys(v)
    arrays = plan.bounds, *plan.stats(lse, delta), *rows, *plan.stats(words)

    def specs(query_head, query_block, key_head, key_block):
        """Of the inputs, from functions of the grid's indices."""
        of_rows = lambda *i: (i[0], query_head(*i), 0, query_block(*i))  # noqa: E731
        of_keys = lambda *i: (i[0], key_head(*i), key_block(*i), 0)  # noqa: E731
        bounds = lambda *i: (_of(plan.bounds, i[0]), 0, query_block(*i))  # noqa: E731
        return (
            of_rows,
            of_keys,
            [
                pl.BlockSpec((1, 2, plan.q_block), bounds),
                pl.BlockSpec((1, 1, 2, plan.q_block), of_rows),
                pl.BlockSpec((1, 1, dim, plan.q_block), of_rows),
                pl.BlockSpec((1, 1, dim, plan.q_block), of_rows),
                pl.BlockSpec((1, 1, plan.k_block, dim), of_keys),
                pl.BlockSpec((1, 1, plan.k_block, dim), of_keys),
                *[pl.BlockSpec((1, 1, 1, plan.q_block), of_rows)] * (words is not None),
            ],
        )

    walk = plan.walk(of_keys=False)
    of_rows, _, in_specs = specs(
        lambda b, h, p, walk: h,
        lambda b, h, p, walk: walk[_of(walk, b), 0, p],
        lambda b, h, p, walk: _group(h, heads // groups),
        lambda b, h, p, walk: walk[_of(walk, b), 1, p],
    )
    dq = pl.pallas_call(
        functools.partial(_query_kernel, scale=scale, dropout=dropout),
        out_shape=jax.ShapeDtypeStruct((batch, heads, dim, plan.n), q.dtype),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(batch, heads, walk.shape[-1]),
            in_specs=in_specs,
            out_specs=pl.BlockSpec((1, 1, dim, plan.q_block), of_rows),
            scratch_shapes=[pltpu.VMEM((dim, plan.q_block), jnp.float32)],
        ),
        compiler_params=_PARAMS,
        cost_estimate=plan.cost(walk, q, products=3),
        interpret=interpret,
    )(walk, *arrays)

    # Walked by keys; a group's query heads one after another at each visit, so that their sum stays at hand.
    repeat = heads // groups
    walk = plan.walk(of_keys=True)
    _, of_keys, in_specs = specs(
        lambda b, g, p, r, walk: g * repeat + r,
        lambda b, g, p, r, walk: walk[_of(walk, b), 1, p],
        lambda b, g, p, r, walk: g,
        lambda b, g, p, r, walk: walk[_of(walk, b), 0, p],
    )
    dk, dv = pl.pallas_call(
        functools.partial(_key_kernel, scale=scale, dropout=dropout),
        out_shape=[jax.ShapeDtypeStruct((batch, groups, plan.m, dim), x.dtype) for x in (k, v)],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(batch, groups, walk.shape[-1], repeat),
            in_specs=in_specs,
            out_specs=[pl.BlockSpec((1, 1, plan.k_block, dim), of_keys)] * 2,
            scratch_shapes=[pltpu.VMEM((plan.k_block, dim), jnp.float32)] * 2,
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=plan.cost(walk, q, products=4),
        interpret=interpret,
    )(walk, *arrays)
    return dq[..., :n].transpose(0, 3, 1, 2), dk[:, :, :m].swapaxes(1, 2), dv[:, :, :m].swapaxes(1, 2)


_PARAMS = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary"))


def _forward_kernel(walk, bounds, q, k, v, *refs, scale, dropout):
    *words, out, lse, acc, peak, total = refs
    p = pl.program_id(2)
    b = _of(walk, pl.program_id(0))
    flags = walk[b, 2, p]

    @pl.when(flags & FIRST != 0)
    def _():
        acc[...] = jnp.zeros_like(acc)
        peak[...] = jnp.full_like(peak, NEVER)
        total[...] = jnp.zeros_like(total)

    def visit(masked):
        logits = _logits(k, q, bounds, walk[b, 1, p], scale, masked)
        new = jnp.maximum(peak[...], jnp.max(logits, axis=0, keepdims=True))
        weights = jnp.exp(logits - new)
        keep = jnp.exp(peak[...] - new)
        peak[...] = new
        total[...] = total[...] * keep + jnp.sum(weights, axis=0, keepdims=True)
        weights = _drop(weights, words, walk[b, 1, p], dropout)
        acc[...] = acc[...] * keep + _dot(v[0, 0], weights.astype(v.dtype), 0, 0)

    _visit(flags, visit)

    @pl.when(flags & LAST != 0)
    def _():
        some = total[...] > 0
        sums = jnp.where(some, total[...], 1.0)
        out[0, 0] = (acc[...] / sums).astype(out.dtype)
        lse[0, 0] = jnp.where(some, peak[...] + jnp.log(sums), -jnp.inf)


def _query_kernel(walk, bounds, stats, q, d_out, k, v, *refs, scale, dropout):
    *words, dq, acc = refs
    p = pl.program_id(2)
    b = _of(walk, pl.program_id(0))
    flags = walk[b, 2, p]

    @pl.when(flags & FIRST != 0)
    def _():
        acc[...] = jnp.zeros_like(acc)

    def visit(masked):
        rows = bounds, stats, q, d_out, k, v
        _, d_logits = _weights(*rows, words, walk[b, 1, p], scale, dropout, masked)
        acc[...] += _dot(k[0, 0], d_logits.astype(k.dtype), 0, 0)

    _visit(flags, visit)

    @pl.when(flags & LAST != 0)
    def _():
        dq[0, 0] = (scale * acc[...]).astype(dq.dtype)


def _key_kernel(walk, bounds, stats, q, d_out, k, v, *refs, scale, dropout):
    *words, dk, dv, acc_k, acc_v = refs
    p, r = pl.program_id(2), pl.program_id(3)
    b = _of(walk, pl.program_id(0))
    flags = walk[b, 2, p]

    @pl.when((flags & FIRST != 0) & (r == 0))
    def _():
        acc_k[...] = jnp.zeros_like(acc_k)
        acc_v[...] = jnp.zeros_like(acc_v)

    def visit(masked):
        rows = bounds, stats, q, d_out, k, v
        weights, d_logits = _weights(*rows, words, walk[b, 0, p], scale, dropout, masked)
        acc_v[...] += _dot(weights.astype(d_out.dtype), d_out[0, 0], 1, 1)
        acc_k[...] += _dot(d_logits.astype(q.dtype), q[0, 0], 1, 1)

    _visit(flags, visit)

    @pl.when((flags & LAST != 0) & (r == pl.num_programs(3) - 1))
    def _():
        dk[0, 0] = (scale * acc_k[...]).astype(dk.dtype)
        dv[0, 0] = acc_v[...].astype(dv.dtype)


def _visit(flags, visit):
    pl.when(flags & (ACTIVE | PARTIAL) == ACTIVE)(lambda: visit(False))
    pl.when(flags & PARTIAL != 0)(lambda: visit(True))


def _logits(k, q, bounds, block, scale, masked):
    """Float32 [keys, queries] of one visit."""
    logits = scale * _dot(k[0, 0], q[0, 0], 1, 0)
    if not masked:
        return logits
    index = block * logits.shape[0] + jax.lax.broadcasted_iota(jnp.int32, logits.shape, 0)
    return jnp.where((bounds[0, :1] <= index) & (index < bounds[0, 1:]), logits, -jnp.inf)


def _drop(x, words, block, dropout):
    """What is of weights [keys, queries] of one visit, dropped by the queries' words, if there are."""
    if not words:
        return x
    index = block * x.shape[0] + jax.lax.broadcasted_iota(jnp.int32, (x.shape[0], 1), 0)
    return drop(x, words[0][0, 0], index, dropout)


def _weights(bounds, stats, q, d_out, k, v, words, block, scale, dropout, masked):
    """Weights and gradients of the logits before `scale`, float32 [keys, queries]."""
    logits = _logits(k, q, bounds, block, scale, masked)
    weights = jnp.exp(logits - stats[0, 0, :1])
    d_weights = _drop(_dot(v[0, 0], d_out[0, 0], 1, 0), words, block, dropout)
    d_logits = weights * (d_weights - stats[0, 0, 1:])
    return _drop(weights, words, block, dropout), d_logits


def _dot(a, b, axis_a, axis_b):
    """Product of two matrices over the given axes, in float32; of float32 inputs exact."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a, b, (((axis_a,), (axis_b,)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def _of(table, b):
    """The row of a table [1 or B, ...] for example b."""
    return b if table.shape[0] > 1 else 0


def _group(h, repeat: int):
    """The key head of query head h (`//` would ask the device for its generation)."""
    return jax.lax.div(h, jnp.int32(repeat))


class _Plan:
    """Padded sizes, spans and blocks of one call."""

    def __init__(self, low, high, n, m):
        self.q_block, self.k_block = block_sizes(low, high, n, m)
        self.n, self.m = n + -n % self.q_block, m + -m % self.k_block
        low, high = (
            static.module(low).pad(x.reshape(-1, n), ((0, 0), (0, self.n - n))).astype(np.int32)
            for x in (low, high)
        )
        self.low, self.high = low, high
        self.bounds = jnp.stack([low, high], axis=1)

    def walk(self, of_keys: bool):
        """int32 [1 or B, 3, P]: see `visits`."""
        blocks = self.m // self.k_block
        table = edges(self.low, self.high, self.q_block, self.k_block, blocks, of_keys=of_keys)
        if static.known(table):
            return jnp.asarray(visits(table[0])[None])
        return jax.vmap(lambda t: visits(t, blocks * (self.n // self.q_block)))(table)

    def cost(self, walk, q, products: int) -> pl.CostEstimate:
        """For the compiler's plans: of a walk with so many products of matrices at every visit, at the most."""
        batch, _, heads, dim = q.shape
        pairs = batch * heads * walk.shape[-1] * self.q_block * self.k_block
        rows = 2 * batch * heads * (self.n + self.m) * dim
        return pl.CostEstimate(
            flops=2 * products * dim * pairs, transcendentals=pairs, bytes_accessed=rows * q.dtype.itemsize
        )

    def bounds_at(self, b, walk, p):
        return (_of(self.bounds, b), 0, walk[_of(walk, b), 0, p])

    def queries(self, x):
        """[B, N, H, D] -> [B, H, D, padded N]."""
        return jnp.pad(x.transpose(0, 2, 3, 1), ((0, 0),) * 3 + ((0, self.n - x.shape[1]),))

    def stats(self, *found):
        """[B, H, N] each -> a list of [B, H, each, padded N]; without what is None it is empty."""
        if found[0] is None:
            return []
        return [jnp.pad(jnp.stack(found, axis=2), ((0, 0),) * 3 + ((0, self.n - found[0].shape[2]),))]

    def keys(self, x):
        """[B, M, G, D] -> [B, G, padded M, D]."""
        return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, self.m - x.shape[1]), (0, 0)))


def block_sizes(low, high, n: int, m: int) -> tuple[int, int]:
    """Sizes of the blocks of queries and keys, multiples of 128: the cheapest of a few by the area visited."""
    fits = lambda length: [s for s in SIZES if s < length + LANES]  # noqa: E731
    if not static.known(low):
        return fits(n)[-1], fits(m)[-1]

    def cost(q_block, k_block):
        pad = -n % q_block
        table = edges(np.pad(low, (0, pad)), np.pad(high, (0, pad)), q_block, k_block, math.ceil(m / k_block))
        return (table[:, 3] - table[:, 0]).sum() * (q_block * k_block + VISIT)

    return min(((a, b) for a in fits(n) for b in fits(m)), key=lambda s: cost(*s))
