"""The public calls: the least number that stays in a top k, or in a nucleus; and what stays of both."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from vargen.kernels import dispatch
from vargen.kernels.selection import gpu, xla

NAME = "selection"
KNOWN = {"xla": xla.search, "gpu": gpu.search}
FILTERS = {"xla": xla.filtered, "gpu": gpu.filtered}


def least_of_most(x, weights, target) -> jax.Array:
    """The largest t for which the weights of all numbers >= t come to `target`: no number is sorted for it.

    With weights 1 it is the k-th largest number, with probabilities the least of a nucleus. The bits of a float, as an
    integer with the sign turned, are in the order of the floats: t is found digit by digit, the highest first, by what
    the weights of the numbers from each value of the digit on come to. Not differentiable.

    Args:
      x: float32 [..., K]; NaN has no place.
      weights: int32 or float32 [..., K], not negative.
      target: [] or [..., 1].

    Returns:
      float32 [..., 1]; NaN where the weights of all don't come to `target`.
    """
    rows, count = x.shape[:-1], x.shape[-1]
    target = jnp.broadcast_to(jnp.asarray(target, weights.dtype), (*rows, 1))
    flat = x.reshape(-1, count), weights.reshape(-1, count), target.reshape(-1, 1)
    return dispatch.run(NAME, None, KNOWN, *flat).reshape(*rows, 1)


def filter_logits(logits, top_k: int = 0, top_p=None) -> jax.Array:
    """-inf outside the top k, then outside the nucleus (Holtzman et al., arXiv 1904.09751): one launch on a GPU.

    Ties are kept, and what differs by a few roundings is one.

    Args:
      logits: float32 [..., K].
      top_k: how many to keep; 0 keeps all (static).
      top_p: keeps the likeliest codes until their mass reaches top_p, always one; None keeps all. A value of
        1 or more filters nothing.

    Returns:
      float32 [..., K].
    """
    top_k = top_k if top_k < logits.shape[-1] else 0
    if not top_k and top_p is None:
        return logits
    nucleus = [] if top_p is None else [jnp.asarray(top_p, jnp.float32).reshape(1)]
    return _filtered(top_k, logits.reshape(-1, logits.shape[-1]), *nucleus).reshape(logits.shape)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _filtered(top_k, x, *top_p):
    def by_place(function, x, *top_p):
        return function(x, top_k, *top_p)

    known = {name: functools.partial(by_place, f) for name, f in FILTERS.items()}
    return dispatch.run(NAME, None, known, x, *top_p)


@_filtered.defjvp
def _differentiated(top_k, primals, tangents):
    found = _filtered(top_k, *primals)
    return found, jnp.where(jnp.isfinite(found), tangents[0], 0.0)
