"""The branched feed: levels proposed at once, then drawn again in part (HMAR, arXiv 2506.04421)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from vargen.content import put, repeat_to, take
from vargen.feeds.refine import Refine
from vargen.feeds.rows import Rows, Step
from vargen.layers import logical
from vargen.layout import Layout
from vargen.orders import Order
from vargen.orders.order import Proposes


class Branched(Refine):
    """As refine, with last blocks that part from a trunk: `next` predicts a level from the image so far; `masked`
    predicts slots of a level from it and from what the level's other slots hold.

    A masked row carries the image so far and a learned vector; another row of its level the sum of the image so far and
    of what its level alone would add to an empty image, each resampled to the level. What the level adds is made of all
    its slots, also of those that are masked, whatever they hold (official code).

    Attributes:
      tokenizer, grid, width, initial, places, side, coords, level_weights, dtype: as `Refine`'s.
      encoder_decoder: not here.
      past: as `Refine`'s; here its rows see their own level alone.
      masked: whether there is the branch `masked`, which the order masked_levels then trains, and draws with.
    """

    past: bool = False
    masked: bool = False

    called = "branched"
    trunk = 1

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages."""
        return ("blocks", "next", "masked") if self.masked else ("blocks", "next")

    @property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """The trunk, and an end of its own."""
        return ((0, 1), (0, 2)) if self.masked else ((0, 1),)

    @property
    def redraws(self) -> Proposes:
        """Levels, where there is the branch that does."""
        return "level" if self.masked else "step"

    def check(self, ordering) -> None:
        """Raises ValueError as `Refine.check`, and for what isn't here."""
        if self.encoder_decoder:
            raise ValueError("feed branched: expected encoder_decoder=False, found True")
        if self.masked and self.past:
            raise ValueError("feed branched: with masked=True expected past=False, found True")
        super().check(ordering)

    def _check_order(self, ordering) -> None:
        if not self.masked:
            super()._check_order(ordering)
            if ordering.thins:
                raise ValueError("feed branched: needs the order levels")
        elif ordering.proposes != "level":
            raise ValueError("feed branched: with masked=True needs the order masked_levels")

    def setup(self):
        super().setup()
        if self.masked:
            self.mask = self.param("mask", logical(self.initial.table(), None, "embed"), (1, self.width))

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass: where examples have orders of their own, of masked prediction, else of `next`.

        Masked are the slots of odd steps (`MaskedLevels.training`), and these alone are asked for. See `Feed.inputs`.
        """
        rows = super().inputs(content, condition, order, quantizer, train)
        if order.steps.ndim == 1:
            return rows
        unknown = put(jnp.zeros(content.shape, bool), jnp.asarray(order.slots), order.steps % 2 == 1)
        starts = (*self.grid.level_starts, self.grid.size)
        state, x = self.begin(len(content)), []
        for level, (start, end) in enumerate(zip(starts, starts[1:], strict=False)):
            own = unknown[:, start:end]
            x.append(
                rows.x[:, start:end] if not level else self._within(state, content, level, own, quantizer)
            )
            state = self._absorb(state, content, level, quantizer)
        layout = dataclasses.replace(rows.layout, branch=1)
        return Rows(jnp.concatenate(x, axis=1), layout, rows.slots, unknown.astype(jnp.float32))

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of a step's whole level; its first step's are of `next`, those of the others of `masked`."""
        level = self._level(step)
        start, size = self.grid.level_starts[level], self.grid.level_sizes[level]
        slots = jnp.broadcast_to(jnp.asarray(order.slots)[..., step.at()], (len(content), step.size))
        if step.start == start:
            rows = super().step_inputs(state, content, condition, order, step, quantizer)
            return dataclasses.replace(rows, slots=slots, aside=start)
        unknown = put(jnp.zeros((len(content), size), bool), slots - start, jnp.ones(slots.shape, bool))
        x = self._within(state, content, level, unknown, quantizer)
        here = np.arange(start, start + size)
        layout = Layout(self.grid.coords[here, 0], self.lie[here], 0, keep=0, window=0, branch=1)
        return Rows(repeat_to(x, condition.vector.shape[0]), layout, slots, aside=start)

    def absorb(self, state, content, step: Step, quantizer=None):
        """The image so far; with the step's level of `content` [B, N] added where all of that is known."""
        level = self._level(step)
        whole = step.start + step.count == self.grid.level_starts[level] + self.grid.level_sizes[level]
        return self._absorb(state, content, level, quantizer) if whole else state

    def enter(self, stage: int, hidden, rows: Rows, cache=None):
        """Rows of an end: what the trunk has made of them [B, M, D]."""
        return dataclasses.replace(rows, x=hidden), cache

    def outputs(self, hidden, rows: Rows):
        """[B, M, D] -> [B, n, D]: the rows of `rows.slots`, which in decoding are some of a level's."""
        if rows.aside is None:
            return hidden
        return take(hidden, repeat_to(rows.slots - rows.aside, len(hidden)))

    def _within(self, state, content, level, unknown, quantizer):
        """Rows [B, n, D] of a level of which bool [B, n] are masked; `state` is the image before it."""
        alone = self._absorb(self.begin(len(content)), content, level, quantizer)
        before, own = (self.tokenizer.resample(s, level) for s in (state, alone))
        mask = self.mask.astype(self.dtype)
        x = jnp.where(unknown[..., None], self.content(before) + mask, self.content(before + own))
        start = self.grid.level_starts[level]
        return self._placed(x, np.arange(start, start + self.grid.level_sizes[level]))
