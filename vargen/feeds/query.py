"""The query feed: places ask, known contents answer (ARPG, arXiv 2503.10568)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.content import repeat_to, take
from vargen.feeds.feed import Turned
from vargen.feeds.rows import Content, Rows, Step, each, key_times, places, whole
from vargen.layers import Dense, Dropout, Embed, Initial, logical
from vargen.layout import Layout, Memory
from vargen.limits import RATE
from vargen.mixers.rope import rotate, squeeze
from vargen.orders import Order
from vargen.slots import Grid, Slot


class Query(Turned, nn.Module):
    """Two stages. In the first the condition and the contents see those of their own and earlier steps; what comes of
    it is turned into keys and values, once. In the second a row for each slot that is asked for, the same learned
    vector everywhere but for its rotary place, looks at these keys and values of earlier steps, and at no other row.

    Attributes:
      grid: the slots.
      slot: what one holds.
      width: D.
      initial: of the parameters.
      prefix: P, rows of the condition.
      heads, kv_heads: H and G of the mixer (G 0: as many), for the keys and values.
      trained_side: of the mixer.
      positions: adds a learned embedding of the slot to the rows of each stage. Rotary places alone are relative, and
        the condition has none: until something is known, a question doesn't know where it asks.
      dropout: rate on the rows of the first stage.
      dtype: compute dtype.
    """

    grid: Grid
    slot: Slot
    width: int
    initial: Initial
    heads: int
    kv_heads: int = 0
    prefix: int = 1
    trained_side: int = 0
    positions: bool = False
    dropout: Annotated[float, RATE] = 0.0
    dtype: Any = jnp.float32

    stages = ("content", "query")
    cached = True
    joins = True
    takes_prefix = True

    @property
    def length(self) -> int:
        """Rows of the first stage, in all."""
        return self.prefix + self.grid.size

    def check(self, ordering) -> None:
        """Raises ValueError for heads that don't fit, and for an order whose training steps differ per example."""
        super().check(ordering)
        if ordering.masked:
            raise ValueError(
                "feed query: needs an order whose steps in training are the same for all examples, such as random"
            )

    def reads_memory(self, stage: int) -> bool:
        """The second does."""
        return stage == 1

    def init_cache(self, batch: int, length: int) -> dict[str, Any]:
        """The shared keys and values: [B, M, G, D/H]."""
        shape = (batch, length, self.groups, self.width // self.heads)
        return {name: jnp.zeros(shape, self.dtype) for name in ("key", "value")}

    @property
    def groups(self) -> int:
        """G."""
        return self.kv_heads or self.heads

    def setup(self):
        self.content = Content(self.slot, self.width, self.initial, dtype=self.dtype)
        self.question = self.param("question", logical(self.initial.table(), None, "embed"), (1, self.width))
        stages = self.stages if self.positions else ()
        table = self.initial.table()
        self.tables = [Embed(self.grid.size, self.width, table, dtype=self.dtype) for _ in stages]
        self.drop = Dropout(self.dropout)
        init, names = self.initial.kernel(), ("embed", "heads")
        size = self.groups * (self.width // self.heads)
        self.key = Dense(size, names, init, False, self.dtype)
        self.value = Dense(size, names, init, False, self.dtype)

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass: all contents but those of the last step; see `Feed.inputs`."""
        n = self.grid.size
        last = int(np.sum(np.asarray(order.steps) == np.asarray(order.steps)[-1]))
        rows = self._rows(
            content, condition, order, Step(0, n - last, last, last, n - last, n - last, begins=True), train
        )
        aside = (order.slots, np.asarray(order.steps))
        return dataclasses.replace(rows, layout=whole(rows.layout, condition), slots=order.slots, aside=aside)

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of the first stage: the contents of the step before."""
        return self._rows(content, condition, order, step, False)

    def enter(self, stage: int, hidden, rows: Rows, cache=None):
        """Rows that ask, from the first stage's results [B, M, D], which the memory keeps."""
        batch = hidden.shape[0]
        shape = (*hidden.shape[:2], self.groups, -1)
        turn = functools.partial(rotate, squeezed=squeeze(self.grid, self.trained_side))
        key = turn(self.key(hidden).reshape(shape), rows.layout.coords)
        new = {"key": key, "value": self.value(hidden).reshape(shape)}
        if cache is not None:
            cache = {name: static.append(cache[name], x, rows.layout.start) for name, x in new.items()}
            new = cache
        times = rows.layout.times if rows.layout.key_times is None else rows.layout.key_times
        times = times[..., : new["key"].shape[1]]
        slots, steps = rows.aside
        where = each(places(self.grid, slots), batch)
        x = jnp.broadcast_to(self.question.astype(self.dtype), (batch, steps.shape[-1], self.width))
        x = self._placed(x, slots, stage)
        layout = Layout(steps, where, memory=Memory(new["key"], new["value"], times))
        return Rows(x, layout, rows.slots), cache

    def _placed(self, x, slots, stage: int = 0):
        """Rows [b, n, D] of slots int [n] or [b, n] as a stage takes them."""
        return x + each(self.tables[stage](slots), len(x)) if self.positions else x

    def _rows(self, content, condition, order: Order, step: Step, train: bool) -> Rows:
        """Contents before `step.start` that are new; a content is of the time after its step, the condition of 0."""
        batch, p = condition.prefix.shape[0], self.prefix
        steps = np.asarray(order.steps)
        at = static.arange(step.start - step.before, step.before)
        slots = static.take(order.slots, at)
        coords = places(self.grid, slots)
        x = repeat_to(self._placed(self.content(take(content, slots)), slots), batch)
        every = np.concatenate([np.zeros(p, np.int32), 1 + steps])
        times, start = static.take(every, at + p), p + step.start - step.before
        if step.begins:
            x = jnp.concatenate([condition.prefix.astype(x.dtype), x], axis=1)
            coords = static.pad(coords, [(p, 0), (0, 0)], -1)
            times, start = every[: p + step.before], 0
        coords = each(coords, batch)
        asked = step.at()
        aside = (static.take(order.slots, asked), static.take(steps, asked))
        layout = Layout(times, coords, start, key_times(every, condition.padding))
        return Rows(self.drop(x, train), layout, aside[0], aside=aside)
