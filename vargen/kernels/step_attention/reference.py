"""Step-masked attention by its definition, dense: the truth for every other implementation."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vargen.kernels import static
from vargen.kernels.dropout import drop

PRECISE = jax.lax.Precision.HIGHEST


def attend(q, k, v, low, high, words=None, *, scale: float, dropout: float = 0.0):
    """softmax(scale q k^T) v over the keys low <= j < high; zeros where a query sees nothing.

    Args:
      q: [B, N, H, D].
      k, v: [B, M, G, D], H a multiple of G.
      low, high: int [N] or [1 or B, N].
      words: None, or int32 [B, H, N]: a random one for each query, by which its weights are dropped (`drop`).
      scale: factor on the logits.
      dropout: rate of that.

    Returns:
      [B, N, H, D] in v's dtype, and the log-sum-exp of the scaled logits float32 [B, H, N] (-inf where a query
      sees nothing), of all that are seen; logits and softmax are float32.
    """
    if static.known(high):
        k, v = (x[:, : max(1, int(high.max(initial=0)))] for x in (k, v))  # what nobody sees may be much
    (batch, n, heads, dim), (m, groups) = q.shape, k.shape[1:3]
    q = q.reshape(batch, n, groups, heads // groups, dim)
    logits = scale * product("bngrd,bmgd->bgrnm", q, k)
    logits = jnp.where(visible(low, high, 0, m)[:, None, None], logits, -jnp.inf)
    peak = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - jnp.where(jnp.isfinite(peak), peak, 0.0))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1.0)
    if words is not None:
        weights = drop(weights, words.reshape(batch, groups, -1, n, 1), jnp.arange(m), dropout)
    out = product("bgrnm,bmgd->bngrd", weights.astype(v.dtype), v)
    lse = jnp.where(total > 0, peak + jnp.log(jnp.where(total > 0, total, 1.0)), -jnp.inf)
    return out.reshape(batch, n, heads, dim).astype(v.dtype), lse.reshape(batch, heads, n)


def attend_cached(q, new_k, new_v, k, v, start, low, high, norms=None, *, scale: float):
    """`attend` with new keys and values [B, n, G, D] put into k and v, the caches, from row `start` (traced) on; before
    that queries and new keys get the norms, if any.

    Returns:
      What `attend` does, then the caches with the new rows.
    """
    q, k, v = placed(q, new_k, new_v, k, v, start, norms)
    return *attend(q, k, v, low, high, scale=scale), k, v


def placed(q, new_k, new_v, k, v, start, norms=None):
    """Queries and new keys with the norms, if any, and the caches with the new rows: what `attend_cached` does first.

    Returns:
      Queries [B, N, H, D], then the caches.
    """
    if norms is not None:
        q, new_k = norms[0](q), norms[1](new_k)
    k, v = (jax.lax.dynamic_update_slice_in_dim(x, new, start, axis=1) for x, new in ((k, new_k), (v, new_v)))
    return q, k, v


def backward(q, k, v, out, lse, d_out, d_lse, low, high, words=None, *, scale: float, dropout: float = 0.0):
    """Gradients of `attend` with respect to q, k and v, from the definition."""
    del out, lse
    run = lambda q, k, v: attend(q, k, v, low, high, words, scale=scale, dropout=dropout)  # noqa: E731
    _, pull = jax.vjp(run, q, k, v)
    return pull((d_out, d_lse))


def merge(outs, lses):
    """The attention over a union of disjoint sets of keys, from the attention over each.

    For visibilities that are unions (skip-causal, ACDiT, arXiv 2412.07720) and for keys spread over devices.

    Args:
      outs: results of `step_attention`, each [B, N, H, D].
      lses: their log-sum-exps, float32 [B, N, H].

    Returns:
      [B, N, H, D] in the first's dtype and float32 [B, N, H]; zeros and -inf where no part sees anything.
    """
    lses = jnp.stack(lses)
    peak = jax.lax.stop_gradient(jnp.max(lses, axis=0))
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    seen = jnp.isfinite(lses)
    weights = jnp.where(seen, jnp.exp(jnp.where(seen, lses - peak, 0.0)), 0.0)
    total = jnp.sum(weights, axis=0)
    some = total > 0
    out = sum(w[..., None] * o.astype(jnp.float32) for w, o in zip(weights, outs, strict=True))
    out = out / jnp.where(some, total, 1.0)[..., None]
    return out.astype(outs[0].dtype), jnp.where(some, peak + jnp.log(jnp.where(some, total, 1.0)), -jnp.inf)


def visible(low, high, start, size: int):
    """bool [1 or B, N, size]: whether query i sees key start + j."""
    index = start + jnp.arange(size)
    low, high = jnp.atleast_2d(low)[..., None], jnp.atleast_2d(high)[..., None]
    return (low <= index) & (index < high)


def product(formula: str, a, b):
    """An einsum in float32: exact products of float32 inputs, float32 sums of bfloat16 ones."""
    precision = PRECISE if a.dtype == b.dtype == jnp.float32 else None
    return jnp.einsum(formula, a, b, precision=precision, preferred_element_type=jnp.float32)
