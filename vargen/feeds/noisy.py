"""The noisy feed: a step's slots with noise, after what is known (ACDiT, arXiv 2412.07720; xAR, arXiv 2502.20388)."""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.content import Noised, repeat_to, take
from vargen.feeds.feed import Pending
from vargen.feeds.rows import Content, Rows, Step, places
from vargen.layers import Dense, Embed, Initial, Norm, sinusoid
from vargen.layout import HIDDEN, Layout, View
from vargen.limits import OneOf
from vargen.orders import Order
from vargen.sharding import by_batch
from vargen.slots import Grid, Slot

FREQUENCIES = 256


class Noisy(Pending, nn.Module):
    """A row for each slot of a step holds a draft of it, modulated by its noise level and the condition's vector.

    Drafts see one another and the contents of earlier steps, and leave no trace: the contents themselves come with the
    first pass of the next step.

    Attributes:
      grid: the slots.
      slot: what one holds.
      width: D.
      initial: of the parameters; the map of the noise level starts as tables do.
      clean: a training pass has the contents of all steps but the last beside the noisy ones: rows that nothing
        modulates, and that see contents alone (ACDiT). Else it has noisy rows alone, which later steps see at whatever
        level they are, and contents that are known are rows of level 0 (xAR).
      encoder_decoder: two stages, with a linear map and places of its own before the second.
      positions: adds a learned embedding of the slot to the rows of each stage.
      norm: of the first stage's rows.
      bias: of the map of contents.
      dtype: compute dtype.
    """

    grid: Grid
    slot: Slot
    width: int
    initial: Initial
    clean: bool = True
    encoder_decoder: bool = False
    positions: bool = False
    norm: Annotated[str, OneOf("none", "layer", "rms")] = "none"
    bias: bool = True
    dtype: Any = jnp.float32

    cached = True
    modulates_rows = True
    drafts = True

    @property
    def stages(self):
        """The names of the stages."""
        return ("encoder", "decoder") if self.encoder_decoder else ("blocks",)

    @property
    def length(self) -> int:
        """Rows that stay, and a step's."""
        return self.grid.size

    def check(self, ordering) -> None:
        """Raises ValueError for an order that examples don't share."""
        if ordering.random or ordering.random_decoding:
            raise ValueError("feed noisy: needs an order that is the same for all examples, such as cells")

    def setup(self):
        init, table = self.initial.kernel(), self.initial.table()
        self.content = Content(self.slot, self.width, self.initial, dtype=self.dtype, bias=self.bias)
        self.time_1 = Dense(self.width, (None, "mlp"), table, dtype=self.dtype)
        self.time_2 = Dense(self.width, ("mlp", "embed"), table, dtype=self.dtype)
        if self.norm != "none":
            self.content_norm = Norm(self.norm)
        stages = self.stages if self.positions else ()
        self.tables = [Embed(self.grid.size, self.width, table, dtype=self.dtype) for _ in stages]
        if self.encoder_decoder:
            self.bridge = Dense(self.width, ("embed", "mlp"), init, dtype=self.dtype)

    def inputs(self, content: Noised, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass, in generation sequence, those that are clean first; see `Feed.inputs`."""
        slots, steps, starts = np.asarray(order.slots), np.asarray(order.steps), order.starts
        own = self._conditions(condition, take(content.level, slots[starts]))
        first = int(starts[-1]) if self.clean else 0
        x = self._placed(self.content(take(content.content, slots)), slots)
        layout = Layout(steps, places(self.grid, slots), keep=len(slots))
        if first:  # contents of the last step are seen by nobody
            known = slots[:first]
            x = jnp.concatenate([self._placed(self.content(take(content.clean, known)), known), x], axis=1)
            layout = self._beside(steps, slots, first)
            slots = np.concatenate([known, slots])
        owner = np.concatenate([np.full(first, -1), steps])
        return Rows(x, layout, np.asarray(order.slots), aside=slots, condition=own, owner=owner)

    def step_inputs(
        self, state, content: Noised, condition, order: Order, step: Step, quantizer=None
    ) -> Rows:
        """Rows of one pass: what the step before left, which stays, then the drafts; see `Feed.step_inputs`."""
        steps, start = np.asarray(order.steps), step.start - step.before
        at = static.arange(start, step.before + step.size)
        slots = static.take(order.slots, at)
        x = self._placed(self.content(take(content.content, slots)), slots)
        x = repeat_to(x, condition.vector.shape[0])
        # A draft lies where its content will: rows of later steps in the cache are not seen.
        layout = Layout(static.take(steps, at), places(self.grid, slots), start, steps, keep=step.before)
        noise_levels, owner = [content.level], np.zeros(step.before + step.size, int)
        if self.clean:
            owner[: step.before] = -1
        elif step.before:
            noise_levels, owner[step.before :] = [jnp.zeros_like(content.level), content.level], 1
        own = self._conditions(condition, jnp.stack(noise_levels)[None])
        return Rows(x, layout, slots[step.before :], aside=slots, condition=own, owner=owner)

    def enter(self, stage: int, hidden, rows: Rows, cache=None):
        """Rows of the second stage from the first one's results [B, M, D]."""
        x = self._placed(self.bridge(hidden), rows.aside, stage)
        return Rows(x, rows.layout, rows.slots, aside=rows.aside), cache

    def _conditions(self, condition, level):
        """[B, G, D] by noise levels [1 or B, G]."""
        time = self.time_2(by_batch(nn.silu(self.time_1(sinusoid(level, FREQUENCIES)))))
        return condition.vector[:, None].astype(self.dtype) + time

    def _placed(self, x, slots, stage: int = 0):
        """Rows [B, n, D] of slots int [n] as a stage takes them."""
        if self.positions:
            x = x + self.tables[stage](slots)
        return x if stage or self.norm == "none" else self.content_norm(x)

    def _beside(self, steps: np.ndarray, slots: np.ndarray, first: int) -> Layout:
        """Skip-causal: contents see those of their own and earlier steps, drafts contents of earlier steps and their
        own step's drafts.
        """
        hidden, nothing = np.full(first, HIDDEN), np.full(first, -1)
        times = np.concatenate([steps[:first], steps - 1])
        key_times = np.concatenate([steps[:first], np.full(len(steps), HIDDEN)])
        drafts = View(np.concatenate([nothing, steps]), np.concatenate([hidden, steps]), window=0)
        coords = places(self.grid, np.concatenate([slots[:first], slots]))
        return Layout(times, coords, key_times=key_times, keep=first, views=(drafts,))
