"""The shift feed: each row carries the content generated just before (GPT; LlamaGen, arXiv 2406.06525)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen.feeds.rows import Content, Rows, Step, repeat_to, take_slots
from vargen.layers import Embed, Initial
from vargen.limits import RATE
from vargen.mixers.layout import Layout
from vargen.orders import Grid, Order


def sources(steps: np.ndarray) -> np.ndarray:
    """int [N]: the position whose content is the input at each position; -1 for the condition.

    With one slot a step that is the previous position; with more, each slot's partner in the step before.
    """
    sizes = np.bincount(steps)
    starts = np.cumsum(sizes) - sizes
    offset = np.arange(len(steps)) - starts[steps]
    before = starts[steps - 1] + offset * sizes[steps - 1] // sizes[steps]
    return np.where(steps == 0, -1, before)


class Shift(nn.Module):
    """Rows carry the contents one step late; the first step's rows carry the condition.

    Where the condition has more rows than one, all but its last come before those that predict.

    Attributes:
      grid: the slots.
      vocab, channels: the tokenizer's: codes where vocab > 0, else latents.
      width: D.
      initial: of the parameters.
      condition_rows: P, rows of the condition.
      hides: whether the condition can hide rows.
      positions: adds a learned embedding of the slot whose content a row carries, or of the condition's row.
      target_positions: adds a learned embedding of the slot to be predicted, which orders other than the
        canonical one need (RAR, arXiv 2411.00776).
      step_condition: rows are modulated by the condition's vector plus a learned embedding of their place in the
        sequence (RAR, official code), instead of the vector alone.
      dropout: rate on the rows.
      dtype: compute dtype.
    """

    grid: Grid
    vocab: int
    channels: int
    width: int
    initial: Initial
    condition_rows: int = 1
    hides: bool = False
    positions: bool = False
    target_positions: bool = False
    step_condition: bool = False
    dropout: Annotated[float, RATE] = 0.0
    dtype: Any = jnp.float32

    stacks = ("blocks",)
    takes_rows = True
    cached = True
    by_level = False

    @property
    def lead(self):
        return self.condition_rows - 1

    @property
    def visibility(self):
        return "led" if self.lead else "steps"

    def check(self, order) -> None:
        """Raises ValueError for an order that this feed can't honour."""
        if order.random_decoding:
            raise ValueError("feed shift: needs steps that are the same for all examples, found random sets")
        if order.random and not self.target_positions:
            raise ValueError("feed shift: a random order needs target_positions=True, found False")

    def setup(self):
        self.content = Content(self.vocab, self.width, self.initial, self.dtype)
        init = self.initial.table()
        size = self.grid.size
        if self.positions:
            self.places = Embed(self.condition_rows + size, self.width, init, dtype=self.dtype)
        if self.target_positions:
            self.targets = Embed(size, self.width, init, dtype=self.dtype)
        if self.step_condition:
            self.steps = Embed(self.lead + size, self.width, init, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass, in generation sequence, after the condition's first rows.

        Args:
          content: codes [B, N] or latents [B, N, C], canonical.
          condition: `Condition`.
          order: the order.
          quantizer: unused here.
          train: whether dropout is on.
        """
        size = order.steps.shape[-1]
        rows = self._rows(content, condition, order, Step(0, 0, size, size, 0))
        layout = rows.layout
        if not self.hides:  # the rows see themselves, all of them
            layout = Layout(layout.steps, layout.coords)
        return dataclasses.replace(rows, x=self.drop(rows.x, deterministic=not train), layout=layout)

    def begin(self, batch: int):
        """The state of decoding: none."""
        return ()

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of one step, the first with the condition's rows; there may be several conditions an example."""
        return self._rows(content, condition, order, step)

    def absorb(self, state, content, step: Step, quantizer=None):
        """The state after a step: none."""
        return state

    def outputs(self, hidden, rows: Rows):
        """[B, M, D] -> [B, n, D]: every row predicts but those in the lead."""
        return hidden[:, hidden.shape[1] - rows.slots.shape[-1] :]

    def _rows(self, content, condition, order, step):
        at = step.positions()
        steps = np.asarray(order.steps)
        source = _at(sources(steps), at)
        slots, first = order.slots, source < 0
        carried, targets = _at(slots, source * (source > 0)), _at(slots, at)
        batch = condition.rows.shape[0]
        x = repeat_to(self.content(take_slots(content, carried)), batch)
        x = jnp.where(jnp.asarray(first)[:, None], condition.rows[:, -1:].astype(x.dtype), x)
        module = np if isinstance(carried, np.ndarray) and isinstance(first, np.ndarray) else jnp
        places = module.asarray(self.grid.places)[carried]
        coords = module.where(module.asarray(first)[:, None], -1, places)
        if self.positions:
            place = module.where(module.asarray(first), self.lead, self.condition_rows + carried)
            x = x + _each(self.places(place), batch)
        if self.target_positions:
            x = x + _each(self.targets(targets), batch)
        coords = repeat_to(coords, batch) if coords.ndim == 3 else coords
        row = at + self.lead
        begins = isinstance(step.start, (int, np.integer)) and step.start == 0
        if begins and self.lead:
            ahead = condition.rows[:, :-1].astype(x.dtype)
            if self.positions:
                ahead = ahead + self.places(np.arange(self.lead))
            x = jnp.concatenate([ahead, x], axis=1)
            pad = [(0, 0)] * (coords.ndim - 2) + [(self.lead, 0), (0, 0)]
            coords = module.pad(coords, pad, constant_values=-1)
            row = np.arange(self.lead + step.rows)
        every = np.concatenate([np.arange(self.lead), self.lead + steps])
        keys = every
        if self.hides:
            hidden = jnp.pad(condition.hidden, ((0, 0), (0, len(every) - self.condition_rows)))
            keys = jnp.where(hidden, len(every), every)
        own = None
        if self.step_condition:
            own = condition.vector[:, None] + self.steps(row)
        start = 0 if begins else step.start + self.lead
        return Rows(x, Layout(_at(every, row), coords, start, keys), targets, condition=own)


def _each(x, batch: int):
    """[n, D] or [b, n, D] for every one of a batch that is a multiple of b."""
    return repeat_to(x, batch) if x.ndim == 3 else x


def _at(table, index):
    """table[..., index], in NumPy while both are known before tracing."""
    if isinstance(table, np.ndarray) and isinstance(index, np.ndarray):
        return table[..., index]
    return jnp.asarray(table)[..., index]
