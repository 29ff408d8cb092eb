"""Tables of codes that start as the means of clusters of vectors (Lloyd, IEEE Trans. Inf. Theory 28, 1982).

A table of random numbers has little to do with what an encoder gives; the means of what it does give are a start from
which few codes die.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vargen.tokenizers import usage
from vargen.tokenizers.distances import nearest, normalised


def at_first(
    step: Any,
    params: dict,
    vectors: Callable[[], Sequence[jax.Array]],
    key: jax.Array,
    iterations: int,
    angle: bool = False,
) -> dict:
    """A tokenizer's parameters, after update number 1 with a table of `start`, after others as they are (jittable).

    Args:
      step: int32 [], the update's number.
      params: whose entry `quantizer` has the table "codebook", float32 [K, C].
      vectors: gives those that are quantised, float32 [M, C] per level; called in the first update alone.
      key, iterations, angle: see `start`.
    """

    def begin(table):
        return start(table, vectors(), key, iterations, angle)

    quantizer = params["quantizer"]
    table = jax.lax.cond(step == 1, begin, lambda table: table, quantizer["codebook"])
    return dict(params, quantizer=dict(quantizer, codebook=table))


def start(
    codebook: jax.Array, vectors: Sequence[jax.Array], key: jax.Array, iterations: int, angle: bool = False
) -> jax.Array:
    """A table for vectors: as many of them as it has codes, drawn at random, then `iterations` of Lloyd's algorithm.

    Args:
      codebook: float32 [K, C]; where there are fewer vectors than codes the others stay.
      vectors: float32 [M, C] per level; levels count alike, however many vectors they have.
      key: for the draw, without replacement.
      iterations, angle: see `lloyd`.
    """
    count = min(len(codebook), sum(len(v) for v in vectors))
    codebook = codebook.at[:count].set(usage.drawn(vectors, key)[:count])
    weights = jnp.concatenate([jnp.full(len(v), 1.0 / len(v)) for v in vectors])
    return lloyd(codebook, jnp.concatenate(vectors), weights, iterations, angle)


def lloyd(
    codebook: jax.Array, vectors: jax.Array, weights: jax.Array, iterations: int, angle: bool = False
) -> jax.Array:
    """Every code becomes the weighted mean of the vectors that it is the nearest to, over and over again (jittable).

    A code that is the nearest to none stays.

    Args:
      codebook: float32 [K, C].
      vectors: float32 [M, C].
      weights: float32 [M].
      iterations: how often.
      angle: whether the nearest is that of the least angle.

    Returns:
      float32 [K, C].
    """
    searched = normalised(vectors) if angle else vectors

    def iteration(_, codes):
        found = nearest(searched, normalised(codes) if angle else codes)
        mass = jnp.zeros(len(codes)).at[found].add(weights)[:, None]
        sums = jnp.zeros_like(codes).at[found].add(weights[:, None] * vectors)
        return jnp.where(mass > 0, sums / jnp.where(mass > 0, mass, 1.0), codes)

    return jax.lax.fori_loop(0, iterations, iteration, codebook)
