"""The public call: the least number that stays in a top k, or in a nucleus."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vargen.kernels import dispatch
from vargen.kernels.selection import gpu, xla

NAME = "selection"
KNOWN = {"xla": xla.search, "gpu": gpu.search}


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
