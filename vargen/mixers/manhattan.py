"""Attention with a two-dimensional decay: RMT's Manhattan self-attention (arXiv 2309.11523)."""

from __future__ import annotations

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.layers import logical
from vargen.layout import Layout
from vargen.limits import Above, AtLeast
from vargen.mixers.place_conv import place_conv, whole_grids
from vargen.mixers.recurrent import Recurrent
from vargen.mixers.retention import turn
from vargen.mixers.rollback import not_taken_back


class Manhattan(Recurrent):
    """softmax(q k^T / sqrt(K) + d log gamma) v, d the Manhattan distance of two places, plus a 5x5 convolution of v.

    RMT, section 3: gamma_h = 1 - 2^(-decay_start - decay_range h / H). The decay is inside the softmax, as in
    the authors' code (the paper's formula multiplies after it). Decomposed, rows first exchange along the rows of
    the grid, then the results along its columns, each with the decay of its own axis.

    The condition's rows lie nowhere, at distance 0 of everyone: they see all rows, and all others see them (when
    decomposed, in the second pass). Queries and keys turn by their place in the grid, row by row.

    Attributes:
      grid: the slots; one level, one frame.
      decomposed: along the two axes; otherwise between all pairs.
      decay_start, decay_range: the decays of the heads.
    """

    grid: Any = None
    decomposed: bool = True
    decay_start: Annotated[float, Above(0)] = 2.0
    decay_range: Annotated[float, AtLeast(0)] = 4.0

    def check(self, layout) -> None:
        """Raises ValueError unless all rows of one plain grid see each other, row by row, and none is taken back."""
        not_taken_back("manhattan", layout)
        if not layout.everyone:
            raise ValueError(
                "mixer manhattan: expected a feed whose rows all see each other, such as mask without "
                "encoder_decoder; found one that hides some"
            )
        if len(self.grid.levels) > 1 or self.grid.frames > 1:
            raise ValueError(
                "mixer manhattan: expected a grid of one level and one frame, "
                f"found {len(self.grid.levels)} levels and {self.grid.frames} frames"
            )
        _shape(layout)

    def init_cache(self, batch: int, length: int):
        """Nothing: there is no cached form."""
        return {}

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """[B, N, D] -> [B, N, D], and the cache as it came."""
        prefix, height, width = _shape(layout)
        q, k, v = (self.project(n, x, self.width, bias=True) for n in ("query", "key", "value"))
        local = self.param(
            "local", logical(nn.initializers.lecun_normal(), None, None, "heads"), (5, 5, self.width)
        )
        local_bias = self.param("local_bias", logical(nn.initializers.zeros, "heads"), (self.width,))
        local = place_conv(v, local, local_bias, layout)
        q, k, v = self.split(q), self.split(k), self.split(v)
        index = np.maximum(np.arange(x.shape[1]) - prefix, 0)[:, None]
        q, k = turn(q, index), turn(k, index)
        first, rest = slice(0, prefix), slice(prefix, None)
        if self.decomposed:

            def lay(y):
                return y[:, rest].reshape(y.shape[0], height, width, *y.shape[2:])

            across = self._attend(lay(q), lay(k), lay(v), _distance(width))
            down = (jnp.swapaxes(y, 1, 2) for y in (lay(q), lay(k), across))
            seen = [
                jnp.broadcast_to(y[:, None, first], (len(y), width, prefix, *y.shape[2:])) for y in (k, v)
            ]
            query, key, value = down
            key, value = (jnp.concatenate(y, axis=2) for y in zip(seen, (key, value), strict=True))
            y = self._attend(query, key, value, np.pad(_distance(height), ((0, 0), (prefix, 0))))
            y = jnp.swapaxes(y, 1, 2).reshape(v[:, rest].shape)
            y = jnp.concatenate([self._attend(q[:, first], k, v, np.zeros((prefix, x.shape[1]))), y], axis=1)
        else:
            places = np.indices((height, width)).reshape(2, -1).T
            distance = np.abs(places[:, None] - places).sum(-1)
            y = self._attend(q, k, v, np.pad(distance, ((prefix, 0), (prefix, 0))))
        return self.out(y.reshape(x.shape) + local, bias=True), cache

    def _attend(self, q, k, v, distance):
        """q [..., N, H, K], k, v [..., M, H, K], distance [N, M] -> [..., N, H, K]."""
        exponents = -self.decay_start - self.decay_range * np.arange(self.heads) / self.heads
        decay = np.log1p(-np.exp2(exponents))[:, None, None] * distance
        logits = jnp.einsum("...nhk,...mhk->...hnm", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits / math.sqrt(q.shape[-1]) + jnp.asarray(decay, jnp.float32))
        return jnp.einsum("...hnm,...mhk->...nhk", weights.astype(v.dtype), v)


def _distance(length: int) -> np.ndarray:
    index = np.arange(length)
    return np.abs(index[:, None] - index)


def _shape(layout: Layout) -> tuple[int, int, int]:
    """Rows that lie nowhere, then height and width of the grid that the others fill."""
    grids = whole_grids(layout)
    if grids is None or grids[1] != 1:
        raise ValueError("mixer manhattan: expected the condition's rows, then a whole grid, row by row")
    return grids[0], *grids[2:]
