"""Step-masked attention for CUDA GPUs (compute capability 8.0 or more), in Pallas on Triton.

One program per block of queries walks the blocks of keys that some of them see (and one per block of keys, for
their gradients, the blocks of queries), in three stretches: masked, whole, masked. Arrays are read as the
public call has them, [B, N, H, D]; what a last block lacks is masked, and no copy is made.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels import static
from vargen.kernels.dropout import drop
from vargen.kernels.step_attention.gpu_blocks import Plan, numbers

LOG2_E = 1.4426950408889634  # the hardware's exponential has base 2
BYTES = (
    "attention_moving_{}_bytes"  # the scope it runs under: of the keys that are there it may see some alone
)


def attend(q, k, v, low, high, words=None, *, scale: float, dropout: float = 0.0, interpret: bool = False):
    """As `reference.attend`."""
    batch, n, heads, dim = q.shape
    plan = Plan("forward", low, high, q, k, interpret)
    out_shape = [
        jax.ShapeDtypeStruct((batch, n, heads, dim), v.dtype),
        jax.ShapeDtypeStruct((batch, heads, n), jnp.float32),
    ]
    with jax.named_scope(BYTES.format(_moved(low, high, k, (q, *_some(words), *out_shape)))):
        out, lse = plan.call(
            functools.partial(_forward_kernel, scale=scale, dropout=dropout),
            grid=(batch, heads, plan.q_blocks),
            in_specs=[
                plan.query_edges(),
                plan.query_spans(),
                plan.queries(),
                *[plan.all_keys()] * 2,
                *[plan.stats()] * (words is not None),
            ],
            out_specs=[plan.queries(), plan.stats()],
            out_shape=out_shape,
        )(*(plan.edges(of_keys=False), plan.bounds, q, k, v), *_some(words))
    return out, lse


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
    (batch, _, heads, _), groups = q.shape, k.shape[2]
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).swapaxes(1, 2) - d_lse
    lse = LOG2_E * jnp.where(jnp.isfinite(lse), lse, 0.0)
    arrays, drops = (lse, delta, q, d_out, k, v, *_some(words)), words is not None

    plan = Plan("query", low, high, q, k, interpret)
    dq = plan.call(
        functools.partial(_query_kernel, scale=scale, dropout=dropout),
        grid=(batch, heads, plan.q_blocks),
        in_specs=[
            plan.query_edges(),
            plan.query_spans(),
            *[plan.stats()] * 2,
            *[plan.queries()] * 2,
            *[plan.all_keys()] * 2,
            *[plan.stats()] * drops,
        ],
        out_specs=plan.queries(),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
    )(plan.edges(of_keys=False), plan.bounds, *arrays)
    plan, repeat = Plan("key", low, high, q, k, interpret), heads // groups
    dk, dv = plan.call(
        functools.partial(_key_kernel, scale=scale, dropout=dropout, repeat=repeat),
        grid=(batch, groups, plan.k_blocks),
        in_specs=[
            plan.key_edges(),
            plan.all_spans(),
            *[plan.group_stats(repeat)] * 2,
            *[plan.group_queries(repeat)] * 2,
            *[plan.keys()] * 2,
            *[plan.group_stats(repeat)] * drops,
        ],
        out_specs=[plan.keys()] * 2,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k, v)],
    )(plan.edges(of_keys=True), plan.bounds, *arrays)
    return dq, dk, dv


def _moved(low, high, k, others) -> int:
    """Bytes of the others, and of the keys and values that some query sees, where that is known before tracing."""
    size = k.size
    if static.known(low, high):
        size = k.size // k.shape[1] * max(0, int(high.max(initial=0) - low.min(initial=k.shape[1])))
    return 2 * size * k.dtype.itemsize + sum(x.size * x.dtype.itemsize for x in others)


def _some(*found):
    return [x for x in found if x is not None]


def _forward_kernel(edges, bounds, q, k, v, *refs, scale, dropout, plan):
    (*words, out, lse), interpret, k_block = refs, plan.interpret, plan.k_block
    here = plan.queries_at(plan.last_first(pl.program_id(2)))
    queries = here.load(q)
    # The largest logit is found before they are scaled: a sign goes with the queries.
    queries, scale = queries if scale >= 0 else -queries, max(abs(scale), 1e-30) * LOG2_E
    low, high = bounds[0][:, None], bounds[1][:, None]
    words = [here.load_stats(w)[:, None] for w in words]
    rows = queries.shape[0]

    def visit(j, carry, masked):
        acc, peak, total = carry
        keys = plan.keys_at(j, masked, alone=False)
        logits = _dot(queries, keys.load(k).T, interpret)
        if masked:
            logits = jnp.where(_seen(low, high, j * k_block, logits.shape, 1), logits, -jnp.inf)
        new = jnp.maximum(peak, scale * jnp.max(logits, axis=1))
        weights = _exp2(logits, scale, new[:, None], interpret)
        keep = _exp2(peak, 1.0, new, interpret)
        total = total * keep + jnp.sum(weights, axis=1)
        for w in words:
            weights = drop(weights, w, numbers(j * k_block, k_block)[None], dropout)
        acc = acc * keep[:, None] + _dot(weights.astype(v.dtype), keys.load(v), interpret)
        return acc, new, total

    empty = jnp.full((rows,), -1e30, jnp.float32), jnp.zeros((rows,), jnp.float32)
    acc, peak, total = _stretches(edges, visit, (jnp.zeros(queries.shape, jnp.float32), *empty), plan)
    some = total > 0
    total = jnp.where(some, total, 1.0)
    here.store(out, acc * (1.0 / total)[:, None])
    here.store_stats(lse, jnp.where(some, (peak + jnp.log2(total)) / LOG2_E, -jnp.inf))


def _query_kernel(edges, bounds, lse, delta, q, d_out, k, v, *refs, scale, dropout, plan):
    (*words, dq), interpret, k_block = refs, plan.interpret, plan.k_block
    here = plan.queries_at(plan.last_first(pl.program_id(2)))
    queries, d_rows, low, high = here.load(q), here.load(d_out), bounds[0][:, None], bounds[1][:, None]
    lse, delta, *words = (here.load_stats(x)[:, None] for x in (lse, delta, *words))

    def visit(j, acc, masked):
        keys = plan.keys_at(j, masked, alone=False)
        k_j = keys.load(k)
        weights = _exp2(_dot(queries, k_j.T, interpret), scale * LOG2_E, lse, interpret)
        if masked:
            weights = jnp.where(_seen(low, high, j * k_block, weights.shape, 1), weights, 0.0)
        d_weights = _dot(d_rows, keys.load(v).T, interpret)
        for w in words:
            d_weights = drop(d_weights, w, numbers(j * k_block, k_block)[None], dropout)
        d_logits = weights * (d_weights - delta)
        return acc + _dot(d_logits.astype(k_j.dtype), k_j, interpret)

    acc = _stretches(edges, visit, jnp.zeros(queries.shape, jnp.float32), plan)
    here.store(dq, scale * acc)


def _key_kernel(edges, bounds, lse, delta, q, d_out, k, v, *refs, scale, dropout, repeat, plan):
    (*words, dk, dv), interpret = refs, plan.interpret
    here = plan.keys_at(pl.program_id(2))
    keys, values, first = here.load(k), here.load(v), here.first
    zeros = jnp.zeros(keys.shape, jnp.float32)

    def head(r, carry):
        def visit(i, carry, masked):
            acc_k, acc_v = carry
            rows = plan.queries_at(i, masked, alone=False)
            queries, d_rows = rows.load(q, r), rows.load(d_out, r)
            weights = _dot(keys, queries.T, interpret)
            weights = _exp2(weights, scale * LOG2_E, rows.load_stats(lse, r)[None], interpret)
            if masked:
                low, high = bounds[0, rows.slice][None], bounds[1, rows.slice][None]
                weights = jnp.where(_seen(low, high, first, weights.shape, 0), weights, 0.0)
            kept, d_weights = weights, _dot(values, d_rows.T, interpret)
            for w in words:
                index = numbers(first, keys.shape[0])[:, None]
                kept, d_weights = (
                    drop(x, rows.load_stats(w, r)[None], index, dropout) for x in (weights, d_weights)
                )
            acc_v = acc_v + _dot(kept.astype(d_rows.dtype), d_rows, interpret)
            d_logits = weights * (d_weights - rows.load_stats(delta, r)[None])
            return acc_k + _dot(d_logits.astype(queries.dtype), queries, interpret), acc_v

        return _stretches(edges, visit, carry, plan)

    acc_k, acc_v = jax.lax.fori_loop(0, repeat, head, (zeros, zeros))
    here.store(dk, scale * acc_k)
    here.store(dv, acc_v)


def _stretches(edges, visit, carry, plan):
    """Visits blocks start to stop, masked but from full_start to full_stop; no code is made for stretches that no block
    of the plan has."""
    for i, masked in enumerate((True, False, True)):
        if plan.has[i]:
            visited = functools.partial(visit, masked=masked)
            carry = jax.lax.fori_loop(edges[i], edges[i + 1], visited, carry)
    return carry


def _seen(low, high, first, shape, axis: int):
    """Which of the keys, numbered from `first` along `axis`, the queries see."""
    index = first + jax.lax.broadcasted_iota(jnp.int32, shape, axis)
    return (low <= index) & (index < high)


def _exp2(x, scale: float, shift, interpret):
    """2^(scale x - shift), float32, in two instructions; results below 2^-126 are 0.

    jnp's, exact there too, takes more.
    """
    if interpret:
        return jnp.exp2(scale * x - shift)
    factor = np.float32(scale).view(np.uint32)
    (y,) = plgpu.elementwise_inline_asm(
        f"{{ .reg .f32 y; fma.rn.f32 y, $1, 0f{factor:08X}, $2; ex2.approx.ftz.f32 $0, y; }}",
        args=[x, jnp.broadcast_to(-shift, x.shape)],
        constraints="=f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, jnp.float32)],
    )
    return y


def _dot(a, b, interpret):
    """Product, float32; of float32 inputs as three TF32 products, which keep 21 bits of every factor."""
    precision = None
    if a.dtype == jnp.float32:
        # Plain float32 products have no tensor cores, and Triton unrolls them until nothing fits the registers.
        precision = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3
        precision = jax.lax.Precision.HIGHEST if interpret else precision
    return jax.lax.dot(a, b, precision=precision, preferred_element_type=jnp.float32)
