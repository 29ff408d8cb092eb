"""One chunk of linear attention as products of matrices: shared by the XLA form and the Pallas kernels.

With P_i the sum of log-decays from the chunk's start to i, and F_j that from behind j to its end,

    o = (q e^P) S + A v,    S' = e^total S + (k e^F)^T v,    A_ij = sum_c q_ic k_jc e^(g_(j+1)c + ... + g_ic).

Splitting the last exponential into e^P_i e^(-P_j) overflows for small decays (gated linear attention, arXiv
2312.06635, section 4), and differences of cumulative sums lose digits. Here no exponent is positive and no sum of
log-decays is a difference. A decay per head has its C x C matrix of sums. For a decay per channel the pairs i > j
are sorted by the highest bit in which i and j differ: with h that bit's value, both lie in one block of 2h
positions, j in its first half and i in its second, so that the exponent is a sum up to the middle plus a sum from
there, and all such pairs are one matrix product. log2(C) of them and the diagonal make up A.

The decay's gradient adds up the same products, each once: exact also where the closed form, a cumulative sum of
q dq - k dk over all positions (its appendix), cancels to a small rest.

Here all arrays are of one head; C positions, log-decays g None, a row [1, C] (per head) or [C, K] (per channel) in
float32, and states are [V, K], so that a decay per channel scales columns. `dtype` is the one to which factors of
matrix products are rounded; all sums are float32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def product(a, b, dims: str, dtype):
    """Matrix product in float32 of a and b rounded to dtype; dims "nn", "nt" or "tn" (t: transposed)."""
    contract = ((0 if dims[0] == "t" else 1,), (1 if dims[1] == "t" else 0,))
    return jax.lax.dot_general(
        a.astype(dtype),
        b.astype(dtype),
        (contract, ((), ())),
        precision=jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def _parts(x, dtype):
    """x itself, or two arrays of a shorter dtype whose sum is x to twice that dtype's digits."""
    if dtype == jnp.float32:
        return [x]
    high = x.astype(dtype)
    return [high, x - high.astype(jnp.float32)]


def _sums(mask, x, dtype, dims="nn"):
    """Sums of x's rows that `mask` [C, C] picks."""
    return sum(product(mask.astype(jnp.float32), part, dims, dtype) for part in _parts(x, dtype))


def _pair_sums(g, dtype):
    """[C, C]: the sum of a row g over j + 1 .. i, 0 for j >= i."""
    i, j = _positions(g.shape[1])
    later = (i > j).astype(jnp.float32)
    return sum(product(part, later, "nn", dtype) for part in _parts(jnp.where(j <= i, g, 0.0), dtype))


def _positions(size: int):
    """int32 [size, size]: the row and the column of each entry."""
    return [jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) for axis in (0, 1)]


def _per_head(g, size: int) -> bool:
    return g.shape == (1, size)


def ends(g, size: int, dtype):
    """e^P, e^F and e^total: [C, 1 or K] twice and [1, 1 or K]; ones without decay."""
    if g is None:
        return 1.0, 1.0, 1.0
    i, j = _positions(size)
    if _per_head(g, size):
        sums = [jnp.sum(jnp.where(mask, g, 0.0), axis=1, keepdims=True) for mask in (j <= i, j > i)]
    else:
        sums = [_sums(mask, g, dtype) for mask in (j <= i, j > i)]
    total = jnp.sum(g, axis=1 if _per_head(g, size) else 0, keepdims=True)
    return tuple(jnp.exp(x) for x in (*sums, total))


def _levels(q, k, g, dtype):
    """For each bit h: the masks of its pairs and of its sums, the weights e^sum and the weighted q and k."""
    i, j = _positions(q.shape[0])
    row = jax.lax.broadcasted_iota(jnp.int32, q.shape, 0)
    half = 1
    while half < q.shape[0]:
        near = (i ^ j) < half
        summed = near & (((i & half) != 0) ^ (j > i))
        weight = jnp.exp(_sums(summed, g, dtype))
        later = (row & half) != 0
        inward, outward = jnp.where(later, q * weight, 0.0), jnp.where(later, 0.0, k * weight)
        yield ((i ^ j) < 2 * half) & ~near, summed, later, weight, inward, outward
        half *= 2


def factors(q, k, g, *, scale: float, diagonal: bool, dtype):
    """What the products with v and the states need: A [C, C], q e^P and k e^F [C, K], e^total; float32.

    Args:
      q, k: [C, K].
      g: log-decays.
      scale: factor on q.
      diagonal: whether A holds the pairs i = j.
      dtype: see above.
    """
    q, k = q.astype(jnp.float32) * scale, k.astype(jnp.float32)
    size = q.shape[0]
    i, j = _positions(size)
    prefix, suffix, total = ends(g, size, dtype)
    if g is None or _per_head(g, size):
        a = product(q, k, "nt", dtype)
        a = a if g is None else a * jnp.exp(_pair_sums(g, dtype))
        a = jnp.where((j <= i) if diagonal else (j < i), a, 0.0)
    else:
        own = jnp.sum(q * k, axis=1, keepdims=True) if diagonal else 0.0
        a = jnp.where(i == j, own, jnp.zeros((size, size), jnp.float32))
        for pairs, _, _, _, inward, outward in _levels(q, k, g, dtype):
            # Of `pairs`, those with i < j have two zero factors.
            a = jnp.where(pairs, product(inward, outward, "nt", dtype), a)
    return a, q * prefix, k * suffix, total


def factors_backward(q, k, g, grads, *, scale: float, diagonal: bool, dtype):
    """Gradients of q, k and g (float32; None without decay) from those of the four `factors`."""
    a_grad, inward_grad, outward_grad, total_grad = grads
    q, k = q.astype(jnp.float32) * scale, k.astype(jnp.float32)
    size = q.shape[0]
    i, j = _positions(size)
    prefix, suffix, total = ends(g, size, dtype)
    dq, dk = inward_grad * prefix, outward_grad * suffix
    seen = (j <= i) if diagonal else (j < i)
    if g is None:
        a_grad = jnp.where(seen, a_grad, 0.0)
        dq, dk = dq + product(a_grad, k, "nn", dtype), dk + product(a_grad, q, "tn", dtype)
        return scale * dq, dk, None
    dprefix, dsuffix = dq * q, dk * k
    if _per_head(g, size):
        a_grad = jnp.where(seen, a_grad * jnp.exp(_pair_sums(g, dtype)), 0.0)
        dsums = a_grad * product(q, k, "nt", dtype)
        dq, dk = dq + product(a_grad, k, "nn", dtype), dk + product(a_grad, q, "tn", dtype)
        # Over j < t for every (i, t), then over i >= t.
        later = (i > j).astype(jnp.float32)
        dg = sum(product(part, later, "nt", dtype) for part in _parts(dsums, dtype))
        dg = jnp.where(j <= i, dg + jnp.sum(dprefix, axis=1, keepdims=True), 0.0)
        dg = dg + jnp.where(j > i, jnp.sum(dsuffix, axis=1, keepdims=True), 0.0)
        dg = jnp.sum(dg, axis=0, keepdims=True)
    else:
        dg = _sums(j <= i, dprefix, dtype, "tn") + _sums(j > i, dsuffix, dtype, "tn")
        if diagonal:
            own = jnp.sum(jnp.where(i == j, a_grad, 0.0), axis=1, keepdims=True)
            dq, dk = dq + own * k, dk + own * q
        for pairs, summed, later, weight, inward, outward in _levels(q, k, g, dtype):
            scores = jnp.where(pairs, a_grad, 0.0)
            inward_grad, outward_grad = (
                product(scores, outward, "nn", dtype),
                product(scores, inward, "tn", dtype),
            )
            dq = dq + jnp.where(later, inward_grad * weight, 0.0)
            dk = dk + jnp.where(later, 0.0, outward_grad * weight)
            dg = dg + _sums(summed, inward_grad * inward + outward_grad * outward, dtype, "tn")
    return scale * dq, dk, dg + total_grad * total


def output(a, inward, v, state, dtype):
    """o [C, V] from `factors`' A and q e^P, v [C, V] and the state [V, K] before the chunk."""
    return product(inward, state, "nt", dtype) + product(a, v, "nn", dtype)


def advance(outward, total, v, state, dtype):
    """The state after the chunk, from k e^F, e^total, v and the state before.

    With q e^P for k e^F, o's gradient for v and the gradient of the state after, it is that of the state before.
    """
    return total * state + product(v, outward, "tn", dtype)


def products_backward(v, state, out_grad, state_grad, g, dtype):
    """Gradients of the four `factors` from those of o and of the state after; they add up over columns of v."""
    total_grad = None
    if g is not None:
        total_grad = jnp.sum(state * state_grad, axis=0, keepdims=True)
        if _per_head(g, v.shape[0]):
            total_grad = jnp.sum(total_grad, axis=1, keepdims=True)
    return (
        product(out_grad, v, "nt", dtype),
        product(out_grad, state, "nn", dtype),
        product(v, state_grad, "nn", dtype),
        total_grad,
    )


def value_backward(a, outward, out_grad, state_grad, dtype):
    """The gradient of v, from those of o and of the state after."""
    return product(a, out_grad, "tn", dtype) + product(outward, state_grad, "nt", dtype)
