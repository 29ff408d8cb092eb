"""The refine feed: each level's rows carry the image so far, resampled to that level (VAR, arXiv 2404.02905)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen.content import repeat_to
from vargen.feeds.feed import Plain
from vargen.feeds.rows import Content, Rows, Step
from vargen.layers import Embed, Initial, logical
from vargen.layout import Layout
from vargen.orders import Order
from vargen.slots import Grid, Slot
from vargen.tokenizers.tokenizer import Leveled


class Refine(Plain, nn.Module):
    """Level s is predicted from the latents that levels before s add up to; level 0 from the condition.

    Attributes:
      tokenizer: a tokenizer with levels: its `start`, `absorb` and `resample` (pure functions).
      grid: the slots, of which a level is a step.
      width: D.
      initial: of the parameters.
      dtype: compute dtype.
    """

    tokenizer: Any
    grid: Grid
    width: int
    initial: Initial
    dtype: Any = jnp.float32

    cached = True

    @property
    def length(self) -> int:
        """Rows in all."""
        return self.grid.size

    def alike(self, step: Step) -> Any:
        """No two: every level has arithmetic of its own."""
        return step.index

    def prefill(self, steps: list[Step]) -> list[Step]:
        """Each level by itself."""
        return steps

    def check(self, ordering) -> None:
        """Raises ValueError for an order whose steps are not the levels, or a tokenizer without them."""
        if not isinstance(self.tokenizer, Leveled):
            raise ValueError("feed refine: needs a tokenizer with levels, such as multiscale_vq")
        fixed = None if ordering.random else ordering.decoding(None, 1)
        if fixed is None or not np.array_equal(fixed.steps, self.grid.coords[:, 0]):
            raise ValueError("feed refine: needs the order levels")

    def setup(self):
        init = self.initial.table()
        self.content = Content(Slot((self.tokenizer.channels,)), self.width, self.initial, dtype=self.dtype)
        self.levels = Embed(len(self.grid.levels), self.width, init, dtype=self.dtype)
        self.positions = Embed(self.grid.size, self.width, init, dtype=self.dtype)
        self.first = self.param("first", logical(init, None, "embed"), (self.grid.level_sizes[0], self.width))

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass; of the condition the vector is used; see `Feed.inputs`."""
        batch = content.shape[0]
        state, latents = self.begin(batch), [jnp.zeros((batch, 0, self.tokenizer.channels))]
        for level in range(1, len(self.grid.levels)):
            state = self._absorb(state, content, level - 1, quantizer)
            latents.append(self.tokenizer.resample(state, level))
        return self.rows_from_latents(jnp.concatenate(latents, axis=1), condition)

    def rows_from_latents(self, latents, condition) -> Rows:
        """Rows of a whole pass, where what the content adds up to is known already.

        Args:
          latents: float32 [B, N - n_0, C]: the image so far, resampled to every level after the first.
          condition: as of `inputs`.
        """
        slots, coords = np.arange(self.grid.size), self.grid.coords
        x = jnp.concatenate([self._first(condition), self.content(latents)], axis=1)
        return Rows(self._placed(x, slots), Layout(coords[:, 0], self.grid.places), slots)

    def begin(self, batch: int):
        """The image so far: latents of zeros [B, h, w, C]."""
        return self.tokenizer.start(batch)

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of the level `step.index`; the condition may hold several for each example."""
        slots, level = step.at(), int(step.index)
        coords = self.grid.coords
        if level == 0:
            x = self._first(condition)
        else:
            x = repeat_to(self.content(self.tokenizer.resample(state, level)), condition.vector.shape[0])
        layout = Layout(coords[slots, 0], self.grid.places[slots], step.start, coords[:, 0])
        return Rows(self._placed(x, slots), layout, slots)

    def absorb(self, state, content, step: Step, quantizer=None):
        """The image so far with the level `step.index` of `content` [B, N] added."""
        return self._absorb(state, content, int(step.index), quantizer)

    def outputs(self, hidden, rows: Rows):
        """[B, M, D] -> [B, N, D]: every row predicts."""
        return hidden

    def _absorb(self, state, content, level, quantizer):
        start, size = self.grid.level_starts[level], self.grid.level_sizes[level]
        return self.tokenizer.absorb(quantizer, state, content[:, start : start + size], level)

    def _first(self, condition):
        return condition.vector[:, None].astype(self.dtype) + self.first.astype(self.dtype)

    def _placed(self, x, slots):
        """Rows [B, n, D] of slots int [n], with their levels and positions added."""
        return x + self.levels(self.grid.coords[slots, 0]) + self.positions(slots)
