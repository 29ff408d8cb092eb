"""Step-masked attention in XLA, a block of queries at a time: no N x M mask or matrix is kept."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vargen.kernels import static
from vargen.kernels.dropout import drop
from vargen.kernels.step_attention.reference import product, visible

# Queries per block: at least, so that matrix products stay large; at most, so that a block's logits stay small.
SMALLEST, LARGEST = 64, 256
# Keys per block where they are walked.
KEYS = 512
# The most blocks of queries that are written out: the compiler keeps the logits of all of them at once.
WRITTEN_OUT = 6


def attend(q, k, v, low, high, words=None, *, scale: float, dropout: float = 0.0):
    """As `reference.attend`. A few blocks of queries with spans known before tracing each meet the keys that some
    query of theirs sees in one product; else keys are walked in blocks, from the first to the last that is seen."""
    groups = k.shape[2]
    q, k, v, words = _by_head(q, groups), _by_head(k), _by_head(v), _by_group(words, groups)
    if written_out := few_blocks(low, high):
        out, lse = [], []
        for block in written_out:
            keys, values = (x[..., block.keys, :] for x in (k, v))
            here = None if words is None else words[..., block.rows]
            dropped = functools.partial(_drop, words=here, first=block.keys.start, rate=dropout)
            o, l = _softmax(q[..., block.rows, :], keys, values, block.mask(low, high), scale, dropped)
            out.append(o.astype(v.dtype))
            lse.append(l)
        out, lse = jnp.concatenate(out, axis=-2), jnp.concatenate(lse, axis=-1)
    else:
        out, lse = _walk(q, k, v, words, low, high, scale, dropout)
    return _by_row(out), lse.reshape(lse.shape[0], -1, lse.shape[-1])


def backward(q, k, v, out, lse, d_out, d_lse, low, high, words=None, *, scale: float, dropout: float = 0.0):
    """Gradients with respect to q, k and v: weights are computed again from the log-sum-exp, block by block.

    dS = P (dP - delta), delta = sum(d_out out) - d_lse: FlashAttention-2, arXiv 2307.08691, section 3.1.
    """
    dtypes = q.dtype, k.dtype, v.dtype
    groups = k.shape[2]
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).swapaxes(1, 2) - d_lse
    lse, delta, words = (_by_group(x, groups) for x in (lse, delta, words))
    q, d_out, k, v = _by_head(q, groups), _by_head(d_out, groups), _by_head(k), _by_head(v)
    if written_out := few_blocks(low, high):
        grads = _backward_of_blocks(written_out, q, k, v, lse, delta, d_out, words, low, high, scale, dropout)
    else:
        grads = _walk_backward(q, k, v, lse, delta, d_out, words, low, high, scale, dropout)
    return tuple(_by_row(g).astype(t) for g, t in zip(grads, dtypes, strict=True))


class Block:
    """Queries `rows` and the keys `keys` that some of them see (slices)."""

    def __init__(self, low, high, start: int, stop: int):
        self.rows = slice(start, stop)
        low, high = low[self.rows], high[self.rows]
        seen = low < high
        first, last = (int(low[seen].min()), int(high[seen].max())) if seen.any() else (0, 0)
        self.keys = slice(first, last)
        self.full = bool(np.all((low == first) & (high == last)))

    def mask(self, low, high):
        """bool [1, 1, 1, rows, keys]; None where everything is seen."""
        if self.full:
            return None
        # Behind a barrier, or the compiler folds the masks of all blocks into constants.
        low, high = jax.lax.optimization_barrier((jnp.asarray(low[self.rows]), jnp.asarray(high[self.rows])))
        return visible(low, high, self.keys.start, self.keys.stop - self.keys.start)[:, None, None]


def few_blocks(low, high) -> list[Block]:
    """The blocks of queries where they are known and few; else none."""
    if not static.known(low) or len(low) > WRITTEN_OUT * LARGEST:
        return []
    found = blocks(low, high)
    return found if len(found) <= WRITTEN_OUT else []


def blocks(low: np.ndarray, high: np.ndarray) -> list[Block]:
    """Blocks of SMALLEST to about LARGEST queries, cut where spans change."""
    n = len(low)
    changes = np.flatnonzero((np.diff(low) != 0) | (np.diff(high) != 0)) + 1
    bounds = [0]
    for change in [*changes.tolist(), n]:
        while change - bounds[-1] > LARGEST:
            bounds.append(bounds[-1] + LARGEST)
        if change - bounds[-1] >= SMALLEST:
            bounds.append(change)
    if bounds[-1] != n:
        bounds.append(n)
    return [Block(low, high, a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def _softmax(q, k, v, mask, scale, dropped):
    """One block by the definition: float32 [B, G, R, n, D] and the log-sum-exp [B, G, R, n]; `dropped`: of weights."""
    if k.shape[-2] == 0:
        return jnp.zeros(q.shape, jnp.float32), jnp.full(q.shape[:-1], -jnp.inf)
    logits = _logits(q, k, mask, scale)
    peak = jnp.max(logits, axis=-1, keepdims=True)
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    weights = jnp.exp(logits - peak)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = product("bgrnm,bgmd->bgrnd", dropped(weights).astype(v.dtype), v) / jnp.where(total > 0, total, 1.0)
    return out, (peak + jnp.log(total))[..., 0]


def _logits(q, k, mask, scale):
    logits = scale * product("bgrnd,bgmd->bgrnm", q, k)
    return logits if mask is None else jnp.where(mask, logits, -jnp.inf)


def _gradients(q, k, v, lse, delta, d_out, mask, scale, dropped):
    """Of one block: float32 dq [B, G, R, n, D], dk and dv [B, G, m, D]."""
    weights = jnp.exp(_logits(q, k, mask, scale) - jnp.where(jnp.isfinite(lse), lse, 0.0)[..., None])
    d_weights = dropped(product("bgrnd,bgmd->bgrnm", d_out, v))
    d_logits = (scale * weights * (d_weights - delta[..., None])).astype(k.dtype)
    dv = product("bgrnm,bgrnd->bgmd", dropped(weights).astype(v.dtype), d_out)
    return product("bgrnm,bgmd->bgrnd", d_logits, k), product("bgrnm,bgrnd->bgmd", d_logits, q), dv


def _backward_of_blocks(written_out, q, k, v, lse, delta, d_out, words, low, high, scale, dropout):
    dq, dk, dv = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for block in written_out:
        rows, keys = block.rows, block.keys
        if keys.stop == keys.start:
            dq.append(jnp.zeros(q[..., rows, :].shape, jnp.float32))
            continue
        of_rows = lse[..., rows], delta[..., rows], d_out[..., rows, :]
        here = None if words is None else words[..., rows]
        dropped = functools.partial(_drop, words=here, first=keys.start, rate=dropout)
        a, b, c = _gradients(
            q[..., rows, :], k[..., keys, :], v[..., keys, :], *of_rows, block.mask(low, high), scale, dropped
        )
        dq.append(a)
        dk, dv = dk.at[..., keys, :].add(b), dv.at[..., keys, :].add(c)
    return jnp.concatenate(dq, axis=-2), dk, dv


def _walk(q, k, v, words, low, high, scale, dropout):
    """Blocks of queries, and for each a loop over the blocks of keys that some query sees (online softmax)."""
    n, size = q.shape[-2], min(KEYS, k.shape[2])
    (k, v), rows, (low, high), (start, stop) = _cut((k, v), (q, words), (low, high), size)

    def block(args):
        (q, words), low, high, start, stop = args

        def body(j, carry):
            acc, peak, total = carry
            k_j, v_j, mask = _take(k, j, size), _take(v, j, size), _seen(low, high, j, size)
            logits = _logits(q, k_j, mask, scale)
            new = jnp.maximum(peak, jnp.max(logits, axis=-1))
            safe = jnp.where(jnp.isfinite(new), new, 0.0)
            weights = jnp.exp(logits - safe[..., None])
            keep = jnp.exp(peak - safe)
            kept = _drop(weights, words, j * size, dropout)
            acc = acc * keep[..., None] + product("bgrnm,bgmd->bgrnd", kept.astype(v.dtype), v_j)
            return acc, new, total * keep + jnp.sum(weights, axis=-1)

        empty = jnp.full(q.shape[:-1], -jnp.inf)
        carry = jnp.zeros(q.shape, jnp.float32), empty, jnp.zeros(q.shape[:-1])
        acc, peak, total = jax.lax.fori_loop(start, stop, body, carry)
        out = acc / jnp.where(total > 0, total, 1.0)[..., None]
        return out.astype(v.dtype), jnp.where(total > 0, peak, 0.0) + jnp.log(total)

    out, lse = jax.lax.map(block, (rows, low, high, start, stop))
    return _join(out, 3)[..., :n, :], _join(lse, 3)[..., :n]


def _walk_backward(q, k, v, lse, delta, d_out, words, low, high, scale, dropout):
    n, m, size = q.shape[-2], k.shape[-2], min(KEYS, k.shape[-2])
    of_rows = q, lse, delta, d_out, words
    (k, v), rows, (low, high), (start, stop) = _cut((k, v), of_rows, (low, high), size)

    def block(carry, args):
        (q, lse, delta, d_out, words), low, high, start, stop = args

        def body(j, carry):
            dq, dk, dv = carry
            k_j, v_j, mask = _take(k, j, size), _take(v, j, size), _seen(low, high, j, size)
            dropped = functools.partial(_drop, words=words, first=j * size, rate=dropout)
            a, b, c = _gradients(q, k_j, v_j, lse, delta, d_out, mask, scale, dropped)
            put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=j * size, axis=2)
            return dq + a, put(dk, _take(dk, j, size) + b), put(dv, _take(dv, j, size) + c)

        dq, *carry = jax.lax.fori_loop(start, stop, body, (jnp.zeros(q.shape, jnp.float32), *carry))
        return tuple(carry), dq

    carry = tuple(jnp.zeros(x.shape, jnp.float32) for x in (k, v))
    (dk, dv), dq = jax.lax.scan(block, carry, (rows, low, high, start, stop))
    return _join(dq, 3)[..., :n, :], dk[..., :m, :], dv[..., :m, :]


def _cut(of_keys, of_rows, spans, keys: int):
    """Keys padded to blocks of `keys`; what belongs to rows [B, G, R, N, ...] and the spans as blocks along a new
    first axis; per block of queries the first block of keys and the one after the last."""
    n, m = of_rows[0].shape[3], of_keys[0].shape[2]
    size = min(LARGEST, n)
    of_keys = [_pad(x, 2, -m % keys) for x in of_keys]

    def cut(x, axis):
        if x is None:
            return None
        x = _pad(x, axis, -n % size)
        return jnp.moveaxis(x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :]), axis, 0)

    low, high = (cut(jnp.atleast_2d(x), 1) for x in spans)  # padding sees nothing: 0 to 0
    seen = low < high
    start = jnp.min(jnp.where(seen, low, m), axis=(1, 2)) // keys
    stop = -(-jnp.max(jnp.where(seen, high, 0), axis=(1, 2)) // keys)
    return of_keys, tuple(cut(x, 3) for x in of_rows), (low, high), (start, stop)


def _drop(x, words, first, rate):
    """x [B, G, R, n, m] of queries with `words` [B, G, R, n] and the keys from `first` on, dropped."""
    return x if words is None else drop(x, words[..., None], first + jnp.arange(x.shape[-1]), rate)


def _join(x, axis):
    """Blocks along the first axis back to one axis of rows."""
    x = jnp.moveaxis(x, 0, axis)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _take(x, j, size):
    return jax.lax.dynamic_slice_in_dim(x, j * size, size, axis=2)


def _seen(low, high, j, size):
    return visible(low, high, j * size, size)[:, None, None]


def _pad(x, axis, size):
    return jnp.pad(x, [(0, size if i == axis else 0) for i in range(x.ndim)]) if size else x


def _by_head(x, groups: int = 0):
    """[B, N, H, D] -> [B, H, N, D], or with groups [B, G, H / G, N, D]."""
    x = x.swapaxes(1, 2)
    return x.reshape(x.shape[0], groups, -1, *x.shape[2:]) if groups else x


def _by_group(x, groups: int):
    """[B, H, N] -> [B, G, H / G, N]; None as it is."""
    return None if x is None else x.reshape(x.shape[0], groups, -1, x.shape[-1])


def _by_row(x):
    """[B, G, (R,) N, D] -> [B, N, H, D]."""
    return x.reshape(x.shape[0], -1, *x.shape[-2:]).swapaxes(1, 2)
