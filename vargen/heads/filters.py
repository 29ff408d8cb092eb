"""Top-k and top-p without a sort: the least logit that stays is searched for by its digits."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

# Bits of a digit. On a CPU each round reads the logits once and compares them with one number; elsewhere a round is a
# launch or two, and comparing with fifteen costs next to nothing.
BITS = dict(cpu=1, default=4)


def filter_logits(logits, top_k: int = 0, top_p=None) -> jax.Array:
    """-inf outside the top k, then outside the nucleus (Holtzman et al., arXiv 1904.09751).

    Ties are kept, and what differs by a few roundings is one.

    Args:
      logits: float32 [..., K].
      top_k: how many to keep; 0 keeps all (static).
      top_p: keeps the likeliest codes until their mass reaches top_p, always one; None keeps all. A value of
        1 or more filters nothing.

    Returns:
      float32 [..., K].
    """
    if top_k and top_k < logits.shape[-1]:
        least = least_of_most(logits, jnp.ones(logits.shape, jnp.int32), top_k)
        logits = jnp.where(_below(logits, least), -jnp.inf, logits)
    if top_p is None:
        return logits
    mass = jnp.exp(logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True))
    least = least_of_most(logits, mass, jnp.maximum(top_p, 1e-30))
    return jnp.where(_below(logits, least) & (jnp.asarray(top_p) < 1.0), -jnp.inf, logits)


def least_of_most(x, weights, target) -> jax.Array:
    """The largest t for which the weights of all numbers >= t come to `target`; NaN if those of all don't.

    The bits of a float, as an integer with the sign turned, are in the order of the floats: t is found digit by digit,
    the highest first, by what the weights come to from each value of the digit on.

    Args:
      x: float32 [..., K].
      weights: [..., K], not negative.
      target: [] or [..., 1].

    Returns:
      float32 [..., 1].
    """
    rounds = {platform: functools.partial(_search, bits=bits) for platform, bits in BITS.items()}
    return jax.lax.platform_dependent(x, weights, jnp.asarray(target, weights.dtype), **rounds)


def _search(x, weights, target, *, bits: int):
    keys = jax.lax.bitcast_convert_type(x, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    keys = jnp.where(keys & sign, ~keys, keys | sign)

    def digit(i, found):
        shift = jnp.uint32(32 - bits) - jnp.uint32(bits) * jnp.asarray(i, jnp.uint32)
        tried = found | (jnp.arange(1, 1 << bits, dtype=jnp.uint32) << shift)
        # [..., K, digits] is never held: it is summed as it is made.
        come_to = jnp.sum(jnp.where(keys[..., None] >= tried[..., None, :], weights[..., None], 0), axis=-2)
        return found | (jnp.sum(come_to >= target, axis=-1, keepdims=True).astype(jnp.uint32) << shift)

    found = jnp.zeros((*x.shape[:-1], 1), jnp.uint32)
    found = jax.lax.fori_loop(0, 32 // bits, digit, found, unroll=bits > 1)
    return jax.lax.bitcast_convert_type(jnp.where(found & sign, found ^ sign, ~found), jnp.float32)


def _below(logits, least):
    """Which logits [..., K] are less than `least` [..., 1] by more than rounding.

    XLA may compute logits once to search them and once more to compare them, rounded otherwise: the last code to stay
    would be less than itself.
    """
    most = jnp.max(logits, axis=-1, keepdims=True)
    return logits < least - 2.0**-20 * jnp.maximum(jnp.abs(most), jnp.abs(least))
