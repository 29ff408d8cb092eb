"""Rows that may be taken back: what a mixer remembers of a pass, and of its first rows alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.layout import Layout
from vargen.mixers.mixer import Mixer


def mix(
    mixer: Mixer, x, layout: Layout, cache: Any = None, train: bool = False, **ahead: Any
) -> tuple[jax.Array, Any]:
    """A mixer's rows and its cache, inside a module that holds it; `ahead` is what `Mixer.reads_ahead` lets it take.

    Where the rows are speculative and the cache is a state, rows come one by one, since the state after each must be
    kept: N states of every layer, and each row's products alone.

    Returns:
      [B, N, D], and the cache, or in that case the caches after each row, [B, N, ...].
    """
    if not layout.speculative or mixer.keeps_rows:
        return mixer(x, layout, cache, train, **ahead)

    def row(mixer, cache, x, times, coords, i):
        here = dataclasses.replace(
            layout, times=times[:, None], coords=coords[:, None], start=layout.start + i, speculative=False
        )
        y, new = mixer(x[:, None], here, cache)
        new = jax.tree.map(lambda old, new: new.astype(old.dtype), cache, new)
        return new, (y[:, 0], new)

    scan = nn.scan(
        row, variable_broadcast="params", split_rngs={"params": False}, in_axes=(1, 1, 1, 0), out_axes=1
    )
    return scan(mixer, cache, x, layout.times, layout.coords, np.arange(x.shape[1]))[1]


def rollback(mixer: Mixer, cache: Any, kept) -> Any:
    """The cache after the first `kept` int [B] rows of a speculative pass, of which `mix` gave `cache`.

    Where none is kept it is any: such an example has come to its end.
    """
    if mixer.keeps_rows:  # later rows are of later times, which nobody sees, and others will take their place
        return cache
    last = jnp.maximum(kept - 1, 0)
    return jax.tree.map(lambda c: jax.vmap(lambda c, i: c[i])(c, last), cache)


def not_taken_back(name: str, layout: Layout) -> None:
    """Raises ValueError for rows that may be taken back, which needs places that differ per example."""
    if layout.speculative:
        raise ValueError(
            f"mixer {name}: expected rows at places that are the same for all examples; found some that may be taken "
            "back, which need attention or a mixer that is causal along the rows"
        )
