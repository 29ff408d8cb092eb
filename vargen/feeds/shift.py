"""The shift feed: each row carries the content generated just before (GPT; LlamaGen, arXiv 2406.06525)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen.feeds.rows import Content, Rows, Step, repeat_to, take_slots
from vargen.layers import Embed, initializer
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

    Attributes:
      grid: the slots.
      vocab, channels: the tokenizer's: codes where vocab > 0, else latents.
      width: D.
      init_std: see `initializer`.
      target_positions: adds a learned embedding of the slot to be predicted, which orders other than the
        canonical one need (RAR, arXiv 2411.00776).
      dropout: rate on the rows.
      dtype: compute dtype.
    """

    grid: Grid
    vocab: int
    channels: int
    width: int
    init_std: float
    target_positions: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    stacks = ("blocks",)
    cached = True
    by_level = False
    visibility = "steps"

    def check(self, order) -> None:
        """Raises ValueError for an order that this feed can't honour."""
        if order.random and not self.target_positions:
            raise ValueError("feed shift: a random order needs target_positions=True, found False")

    def setup(self):
        self.content = Content(self.vocab, self.width, self.init_std, self.dtype)
        if self.target_positions:
            init = initializer(self.init_std or 0.02, self.width)
            self.targets = Embed(self.grid.size, self.width, init, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass, in generation sequence.

        Args:
          content: codes [B, N] or latents [B, N, C], canonical.
          condition: [B, D].
          order: the order.
          quantizer: unused here.
          train: whether dropout is on.
        """
        source = sources(np.asarray(order.steps))
        step = Step(0, 0, len(source), len(source), 0)
        rows = self._rows(content, condition, order, step)
        layout = Layout(np.asarray(order.steps), rows.layout.coords)
        return Rows(self.drop(rows.x, deterministic=not train), layout, rows.slots)

    def begin(self, batch: int):
        """The state of decoding: none."""
        return ()

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of one step; condition [R B, D] may hold several conditions for each example."""
        return self._rows(content, condition, order, step)

    def absorb(self, state, content, step: Step, quantizer=None):
        """The state after a step: none."""
        return state

    def outputs(self, hidden, rows: Rows):
        """[B, M, D] -> [B, N, D]: every row predicts."""
        return hidden

    def _rows(self, content, condition, order, step):
        at = step.positions()
        steps = np.asarray(order.steps)
        source = _at(sources(steps), at)
        slots, first = order.slots, source < 0
        carried = _at(slots, source * (source > 0))
        x = repeat_to(self.content(take_slots(content, carried)), condition.shape[0])
        x = jnp.where(jnp.asarray(first)[:, None], condition[:, None].astype(x.dtype), x)
        targets = _at(slots, at)
        if self.target_positions:
            x = x + repeat_to(
                jnp.broadcast_to(self.targets(targets), (content.shape[0], *x.shape[1:])), x.shape[0]
            )
        module = np if isinstance(carried, np.ndarray) and isinstance(first, np.ndarray) else jnp
        places = module.asarray(self.grid.places)[carried]
        coords = module.where(module.asarray(first)[:, None], -1, places)
        if coords.ndim == 3:
            coords = repeat_to(coords, x.shape[0])
        layout = Layout(_at(steps, at), coords, step.start, steps)
        return Rows(x, layout, targets)


def _at(table, index):
    """table[..., index], in NumPy while both are known before tracing."""
    if isinstance(table, np.ndarray) and isinstance(index, np.ndarray):
        return table[..., index]
    return jnp.asarray(table)[..., index]
