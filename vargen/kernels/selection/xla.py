"""The search and the filters by XLA, and how floats and digits go into one another."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

SIGN = 1 << 31
ROUNDING = 2.0**-20  # of the largest: numbers that differ by no more are one
# Bits of a digit. On a CPU each round reads the numbers once and compares them with one other; elsewhere a round is a
# launch or two, and comparing with fifteen costs next to nothing.
BITS = dict(cpu=1, default=4)


def search(x, weights, target) -> jax.Array:
    """As `least_of_most`, of [R, K] and targets [R, 1]."""
    rounds = {platform: functools.partial(by_digits, bits=bits) for platform, bits in BITS.items()}
    return jax.lax.platform_dependent(x, weights, target, **rounds)


def filtered(x, top_k: int, top_p=None) -> jax.Array:
    """As the public call, of [R, K] and a nucleus of [1] or None."""
    if top_k:
        least = search(x, jnp.ones(x.shape, jnp.int32), jnp.full((len(x), 1), top_k, jnp.int32))
        x = jnp.where(_below(x, least), -jnp.inf, x)
    if top_p is None:
        return x
    mass = jnp.exp(x - jax.nn.logsumexp(x, axis=-1, keepdims=True))
    least = search(x, mass, jnp.broadcast_to(jnp.maximum(top_p, 1e-30), (len(x), 1)))
    return jnp.where(_below(x, least) & (top_p < 1.0), -jnp.inf, x)


def _below(x, least):
    """Which of x [R, K] are less than `least` [R, 1] by more than rounding.

    XLA may compute logits once to search them and once more to compare them, rounded otherwise: the last code to stay
    would be less than itself.
    """
    most = jnp.max(x, axis=-1, keepdims=True)
    return x < least - ROUNDING * jnp.maximum(jnp.abs(most), jnp.abs(least))


def by_digits(x, weights, target, *, bits: int) -> jax.Array:
    """`search` by digits of so many bits."""
    keys = to_keys(x)

    def digit(i, found):
        shift = jnp.uint32(32 - bits) - jnp.uint32(bits) * jnp.asarray(i, jnp.uint32)
        tried = found | (jnp.arange(1, 1 << bits, dtype=jnp.uint32) << shift)
        # [R, K, digits] is never held: it is summed as it is made.
        come_to = jnp.sum(jnp.where(keys[..., None] >= tried[:, None, :], weights[..., None], 0), axis=1)
        return found | (jnp.sum(come_to >= target, axis=-1, keepdims=True).astype(jnp.uint32) << shift)

    found = jnp.zeros((len(x), 1), jnp.uint32)
    return from_keys(jax.lax.fori_loop(0, 32 // bits, digit, found, unroll=bits > 1))


def to_keys(x) -> jax.Array:
    """uint32, in the order of the floats; 0 comes before all."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >= jnp.uint32(SIGN), ~bits, bits | jnp.uint32(SIGN))


def from_keys(keys) -> jax.Array:
    """The floats of `to_keys`; NaN for 0."""
    bits = jnp.where(keys >= jnp.uint32(SIGN), keys ^ jnp.uint32(SIGN), ~keys)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
