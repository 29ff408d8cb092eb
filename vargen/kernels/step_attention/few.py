"""Step-masked attention of a few queries over many keys, a step of decoding, for CUDA GPUs, in Pallas on Triton.

One program per example, group of heads and stretch of keys reads each key that some query sees once, for all queries
and heads of the group; where one stretch would leave most of the GPU idle there are several, merged by their
log-sum-exp (Flash-Decoding). Arrays are read as the public call has them, without a copy.
"""

from __future__ import annotations

import contextlib
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels import static
from vargen.kernels.step_attention.gpu import BYTES, LOG2_E, _dot, _exp2
from vargen.kernels.step_attention.reference import merge

BLOCK = 64  # keys that a program looks at together
PROGRAMS = 132  # of which as many as an H100 has multiprocessors run at once
STRETCH = 256  # keys that a stretch has at least
DOT = 16  # rows and channels that a product on tensor cores has at least


def attend(q, k, v, low, high, *, scale: float, interpret: bool = False):
    """As `reference.attend`."""
    out, lse = _call(q, k, v, low, high, None, q.shape[2], None, scale, interpret)
    return out, lse


def attend_cached(
    q, new_k, new_v, k, v, start, low, high, norms=None, *, scale: float, interpret: bool = False
):
    """As `reference.attend_cached`; the caches are written in place, by the programs that look at the new rows."""
    # As one array: what makes the three is one launch then, or none where one product has made them side by side.
    rows = jnp.concatenate([y.reshape(*y.shape[:2], -1) for y in (q, new_k, new_v)], axis=2)
    rows = rows.reshape(*q.shape[:2], -1, q.shape[3])
    start = jnp.asarray(start, jnp.int32).reshape(1)
    return _call(rows, k, v, low, high, start, q.shape[2], norms, scale, interpret)


def _call(rows, k, v, low, high, start, heads, norms, scale, interpret):
    """The kernel over queries [B, N, H, D]; with `start` the new keys and values lie behind them, along the heads."""
    (batch, n, _, dim), (m, groups) = rows.shape, k.shape[1:3]
    known = static.known(high)
    if known:
        m = max(1, int(high.max(initial=0)))  # what nobody sees may be much
    repeat = heads // groups
    stretches = max(1, min(PROGRAMS // (batch * groups), m // STRETCH))
    low, high = (jnp.broadcast_to(jnp.asarray(x, jnp.int32), (batch, n)) for x in (low, high))
    keys = pl.BlockSpec((None, m, None, dim), lambda b, g, s: (b, 0, g, 0))
    spans = pl.BlockSpec((None, n), lambda b, g, s: (b, 0))
    queries = pl.BlockSpec((None, n, repeat, dim), lambda b, g, s: (b, 0, g, 0))
    inputs, in_specs = [low, high, rows, k, v], [spans, spans, queries, keys, keys]
    shape, dtype = (stretches, batch, n, heads, dim), v.dtype if stretches == 1 else jnp.float32
    out_shape = [
        jax.ShapeDtypeStruct(shape, dtype),
        jax.ShapeDtypeStruct((stretches, batch, groups, repeat, n), jnp.float32),
    ]
    out_specs = [
        pl.BlockSpec((None, None, n, repeat, dim), lambda b, g, s: (s, b, 0, g, 0)),
        pl.BlockSpec((None, None, None, repeat, n), lambda b, g, s: (s, b, g, 0, 0)),
    ]
    own, tree = jax.tree.flatten(norms)
    if start is not None:
        inputs += [start, rows, rows]
        in_specs.append(pl.BlockSpec((1,), lambda b, g, s: (0,)))
        for first in (heads, heads + groups):
            at = functools.partial(lambda b, g, s, first: (b, 0, first + g, 0), first=first)
            in_specs.append(pl.BlockSpec((None, n, None, dim), at))
        out_shape += [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k, v)]
        out_specs += [keys, keys]
    # The keys and values that are seen, and of the caches the rows that are written.
    seen = 2 * (m + (n if start is not None else 0)) * k.size // k.shape[1] * k.dtype.itemsize
    moved = seen + sum(x.size * x.dtype.itemsize for x in (rows, *own, *out_shape[:2]))
    # Of keys that are seen as the program runs all count.
    with jax.named_scope(BYTES.format(moved)) if known else contextlib.nullcontext():
        out, lse, *caches = pl.pallas_call(
            functools.partial(
                _kernel, scale=scale, size=pl.cdiv(m, stretches), norms=tree, interpret=interpret
            ),
            grid=(batch, groups, stretches),
            in_specs=in_specs + [pl.BlockSpec()] * len(own),
            out_specs=out_specs,
            out_shape=out_shape,
            input_output_aliases={} if start is None else {3: 2, 4: 3},
            compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
            interpret=interpret,
        )(*inputs, *own)
    lse = lse.reshape(stretches, batch, heads, n)
    if stretches == 1:
        return out[0], lse[0], *caches
    out, lse = merge(out, lse.swapaxes(2, 3))
    return out.astype(v.dtype), lse.swapaxes(1, 2), *caches


def _kernel(low, high, q, k, v, *refs, scale, size, norms, interpret):
    count = norms.num_leaves
    new, rest = ([], refs) if len(refs) == 2 else (refs[:3], refs[3:])
    norms, (out, lse, *caches) = jax.tree.unflatten(norms, rest[:count]), rest[count:]
    (n, repeat, dim), m = q.shape, k.shape[0]
    row, channel = jnp.arange(power(n * repeat)), jnp.arange(power(dim))
    query, head = row // repeat, row % repeat
    real, inside = row < n * repeat, channel < dim
    index = (query[:, None], head[:, None], channel[None])
    both = real[:, None] & inside[None]
    queries = plgpu.load(q.at[index], mask=both, other=0.0)
    group = pl.program_id(1)
    if norms is not None:
        queries = normed(queries, norms[0], group * repeat + head, channel, dim)
    # The largest logit is found before they are scaled: a sign goes with the queries.
    queries, scale = queries if scale >= 0 else -queries, max(abs(scale), 1e-30) * LOG2_E
    first, last = (plgpu.load(x.at[query], mask=real, other=0) for x in (low, high))
    stretch = pl.program_id(2)
    begin, end = stretch * size, jnp.minimum((stretch + 1) * size, m)
    begin = jnp.maximum(begin, jnp.min(jnp.where(real & (first < last), first, m)))
    end = jnp.minimum(end, jnp.max(last))
    if new:
        start = new[0][0]
        end = jnp.minimum(end, start)

    def look(refs, at, key, there, carry, norm=None):
        """At rows `at` of keys and values, which are keys number `key`, `there` or not; keys may want a norm."""
        acc, peak, total = carry
        spot, mask = (at[:, None], channel[None]), there[:, None] & inside[None]
        keys, values = (plgpu.load(x.at[spot], mask=mask, other=0.0) for x in refs)
        keys = keys if norm is None else normed(keys, norm, group, channel, dim)
        logits = _dot(queries, keys.T, interpret)
        seen = (first[:, None] <= key[None]) & (key[None] < last[:, None]) & there[None]
        logits = jnp.where(seen, logits, -jnp.inf)
        peaks = jnp.maximum(peak, scale * jnp.max(logits, axis=1))
        weights = _exp2(logits, scale, peaks[:, None], interpret)
        keep = _exp2(peak, 1.0, peaks, interpret)
        acc = acc * keep[:, None] + _dot(weights.astype(values.dtype), values, interpret)
        return (acc, peaks, total * keep + jnp.sum(weights, axis=1)), keys, values

    def visit(j, carry):
        key = begin + j * BLOCK + jnp.arange(BLOCK)
        return look((k, v), key, key, key < end, carry)[0]

    empty = jnp.full(row.shape, -1e30, jnp.float32), jnp.zeros(row.shape, jnp.float32)
    carry = jnp.zeros((len(row), len(channel)), jnp.float32), *empty
    carry = jax.lax.fori_loop(0, pl.cdiv(jnp.maximum(end - begin, 0), BLOCK), visit, carry)
    if new:
        at = jnp.arange(power(n))
        there = (at < n) & (stretch == 0)
        norm = None if norms is None else norms[1]
        carry, keys, values = look(new[1:], at, start + at, there, carry, norm)
        for cache, rows in zip(caches, (keys, values), strict=True):
            spot, mask = ((start + at)[:, None], channel[None]), there[:, None] & inside[None]
            plgpu.store(cache.at[spot], rows, mask=mask)
    acc, peak, total = carry
    some = total > 0
    total = jnp.where(some, total, 1.0)
    plgpu.store(out.at[index], (acc * (1.0 / total)[:, None]).astype(out.dtype), mask=both)
    found = jnp.where(some, (peak + jnp.log2(total)) / LOG2_E, -jnp.inf)
    plgpu.store(lse.at[head, query], found, mask=real)


def normed(rows, norm, head, channel, dim: int):
    """Rows [n, D] of heads (int [n], or of one) with their norm, as `normalized` makes it."""
    inside = channel < dim
    y = rows.astype(jnp.float32)
    if norm.kind == "layer":
        y = jnp.where(inside, y - jnp.sum(y, axis=1, keepdims=True) / dim, 0.0)
    square = jnp.sum(y * y, axis=1, keepdims=True)
    if norm.kind == "unit":
        y = y / jnp.maximum(jnp.sqrt(square), norm.eps)
    else:
        y = y * jax.lax.rsqrt(square / dim + norm.eps)
    for name, function in (("scale", jnp.multiply), ("bias", jnp.add)):
        if name in norm.own:
            own = norm.own[name]
            one_for_all = len(own.shape) == 1
            own_channel = channel if own.shape[-1] > 1 else 0 * channel
            own_head = jnp.broadcast_to(head, rows.shape[:1])[:, None]
            spot = own_channel if one_for_all else (own_head, own_channel[None])
            mask = inside if one_for_all else jnp.broadcast_to(inside[None], rows.shape)
            vector = plgpu.load(own.at[spot], mask=mask, other=0.0).astype(jnp.float32)
            y = function(y, vector[None] if one_for_all else vector)
    return y.astype(rows.dtype)


def power(size: int) -> int:
    """The next power of two, at least `DOT`."""
    return max(DOT, 1 << (size - 1).bit_length())
