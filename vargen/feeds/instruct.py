"""The instruct feed: a row that asks for a slot before each row that holds its content (RandAR, arXiv 2412.01827)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.content import UNSEEN, repeat_to, take
from vargen.feeds.feed import Turned
from vargen.feeds.rows import Content, Rows, Step, each, key_times, places, whole
from vargen.layers import Dropout, Initial, logical
from vargen.layout import Layout
from vargen.limits import RATE
from vargen.mixers.rope import rotate, squeeze
from vargen.orders import Order
from vargen.slots import Grid, Slot


class Instruct(Turned, nn.Module):
    """The condition's P rows, then for every slot of the sequence an instruction and its content: q_0, x_0, q_1, ...

    An instruction is one learned vector, turned by the place that it asks for as rotary positions turn a query; its row
    predicts the slot. Rows see all rows before them. A step of several slots asks for all of them at once, each seeing
    the ones before; of these rows only the first stays, and the next pass brings the others anew, each before its
    content.

    Attributes:
      grid: the slots.
      slot: what one holds.
      width: D.
      initial: of the parameters.
      prefix: P, rows of the condition.
      heads: H of the mixer, by which the instruction is turned.
      trained_side: of the mixer.
      dropout: rate on the rows of contents.
      dtype: compute dtype.
    """

    grid: Grid
    slot: Slot
    width: int
    initial: Initial
    heads: int
    prefix: int = 1
    trained_side: int = 0
    dropout: Annotated[float, RATE] = 0.0
    dtype: Any = jnp.float32

    cached = True
    joins = True
    takes_prefix = True
    hides = True

    @property
    def length(self) -> int:
        """Rows in all."""
        return self.prefix + 2 * self.grid.size

    def check(self, ordering) -> None:
        """Raises ValueError for heads that don't fit, and for an order whose training has several slots a step: each
        would be learnt from the contents of others of its step, which decoding doesn't have."""
        super().check(ordering)
        alone = ordering.random or np.array_equal(ordering.decoding(None, 1).steps, np.arange(self.grid.size))
        if ordering.masked or not alone:
            raise ValueError("feed instruct: needs an order of one slot a step in training, such as random")

    def setup(self):
        self.content = Content(self.slot, self.width, self.initial, dtype=self.dtype)
        self.instruction = self.param(
            "instruction", logical(self.initial.table(), None, "embed"), (1, self.width)
        )
        self.drop = Dropout(self.dropout)

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass, without the last content; see `Feed.inputs`."""
        n = self.grid.size
        rows = self._rows(
            content, condition, order, Step(n - 1, n - 1, 1, 1, n - 1, n - 1, begins=True), train
        )
        # `keep` stands, all of these rows: a step of several slots keeps fewer, which not every mixer can.
        layout = whole(rows.layout, condition)
        asking = self.prefix + 2 * np.arange(n)
        return dataclasses.replace(rows, layout=layout, slots=order.slots, aside=asking)

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of one step: the contents of the step before, which stay, and the instructions of this one."""
        return self._rows(content, condition, order, step, False)

    def outputs(self, hidden, rows: Rows):
        """[B, M, D] -> [B, n, D]: rows that ask predict."""
        return hidden[:, rows.aside]

    def _rows(self, content, condition, order: Order, step: Step, train: bool) -> Rows:
        """Rows in the sequence of a whole pass: contents before `step.start` that are new, then what the step asks."""
        batch, p = condition.prefix.shape[0], self.prefix
        # What comes first in a pass but the first is the content of a slot whose instruction stayed.
        new = p + 2 * step.before if step.begins else 2 * step.before - 1
        start = 0 if step.begins else p + 2 * step.start - new
        asks = np.arange(new) % 2 == (p if step.begins else 1) % 2
        index = static.arange(start, new)
        at = static.module(index).maximum(index - p, 0) // 2
        at = static.module(at).concatenate([at, step.at()])
        asks = np.concatenate([asks, np.ones(step.size, bool)])
        ahead = np.arange(new + step.size) < (p if step.begins else 0)
        slots = static.take(order.slots, at)
        where = places(self.grid, slots)
        coords = static.where(ahead[:, None], -1, where)
        found = take(content, repeat_to(slots, len(content)) if slots.ndim == 2 else slots)
        x = self.drop(self.content(found), train)
        if self.slot.vocab and not self.slot.shape:
            x = jnp.where((found == UNSEEN)[..., None], jnp.zeros((), x.dtype), x)
        asked = repeat_to(self.instructions(where).astype(x.dtype), len(x))
        x = jnp.where(jnp.asarray(asks)[:, None], asked, x)
        x = repeat_to(jnp.broadcast_to(x, (content.shape[0], *x.shape[1:])), batch)
        if step.begins:
            x = jnp.concatenate([condition.prefix.astype(x.dtype), x[:, p:]], axis=1)
        coords = each(coords, batch)
        times = static.arange(start, new + step.size)
        keys = key_times(np.arange(self.length), condition.padding)
        layout = Layout(times, coords, start, keys, keep=new + 1)
        return Rows(x, layout, slots[..., new:], aside=np.arange(new, new + step.size))

    def instructions(self, where):
        """[1 or B, n, D]: the instruction, turned by places [.., n, A]."""
        shape = (where.shape[0] if where.ndim == 3 else 1, where.shape[-2], self.heads, -1)
        x = jnp.broadcast_to(self.instruction, (*shape[:2], self.width)).reshape(shape)
        return rotate(x, where, squeezed=squeeze(self.grid, self.trained_side)).reshape(
            *shape[:2], self.width
        )
