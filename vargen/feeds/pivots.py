"""The pivots feed: a few coarse slots first, whose hidden vectors then guide the rest (Hi-MAR, arXiv 2505.20288)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.content import put, repeat_to, take
from vargen.feeds.feed import Plain
from vargen.feeds.rows import Content, Rows, Step, places
from vargen.layers import Dense, Embed, Initial, Norm, logical
from vargen.layout import Layout
from vargen.limits import EPS, SHARE, Between
from vargen.orders import Order
from vargen.slots import Grid, Slot


class Known(NamedTuple):
    """What the decoder's rows are made of.

    Attributes:
      round: 0 or 1.
      slots: int [B, m], those whose rows the encoder had behind the condition's.
      valid: bool [B, m]: which of them are known.
      after: of a whole pass, what the second round is made of: content, the condition's rows, which slots are known
        bool [B, N], which pivots it is told bool [B, P].
    """

    round: int
    slots: Any
    valid: Any
    after: Any = None


class Pivots(Plain, nn.Module):
    """Masked prediction in two rounds through the same encoder and decoder: the first level's slots, the pivots, then
    those of the second.

    Both rounds lay out the condition's rows and all slots. In the first, known pivots have their contents and all else
    a mask embedding; in the second every pivot has the hidden vector that the first gave it when it predicted it, or a
    learned content where it predicted none, and known slots of the second level have their contents. Mask embeddings
    and places are of their own for each round, and each slot.

    A training pass has both rounds, the second with the hidden vectors of the first, without their gradient.

    Attributes:
      grid: the slots, of two levels.
      slot: what one holds.
      width: D.
      initial: of the parameters.
      most_known: the most slots that are known in a training pass.
      buffer: rows that carry the condition.
      hidden_share: share of training's examples whose second round has hidden vectors; in the others all pivots have
        the learned content.
      eps: of the norm of rows.
      dtype: compute dtype.
    """

    grid: Grid
    slot: Slot
    width: int
    initial: Initial
    most_known: int
    buffer: Annotated[int, Between(1, 2**16)] = 64
    hidden_share: Annotated[float, SHARE] = 0.25
    eps: Annotated[float, EPS] = 1e-6
    dtype: Any = jnp.float32

    cached = False
    stages = ("encoder", "decoder")
    rounds = 2

    @property
    def length(self) -> int:
        """Rows in all."""
        return self.buffer + self.grid.size

    @property
    def pivots(self) -> int:
        """P, slots of the first level."""
        return self.grid.level_sizes[0]

    def prefill(self, steps: list[Step]) -> list[Step]:
        """None: every pass sees all contents that are known."""
        return []

    def check(self, ordering) -> None:
        """Raises ValueError for an order that isn't level by level, for other slots than latents of two levels."""
        if not ordering.by_level:
            raise ValueError("feed pivots: needs an order of random sets level by level, such as level_sets")
        if len(self.grid.levels) != 2 or self.slot.vocab or self.slot.coded:
            raise ValueError(
                f"feed pivots: expected a tokenizer of latents at two levels, such as pyramid_kl, found slots of "
                f"{self.slot} at {len(self.grid.levels)}"
            )

    def setup(self):
        table, rows = self.initial.table(), self.rounds * self.length
        self.content = Content(self.slot, self.width, self.initial, dtype=self.dtype)
        self.pivot = Content(self.slot, self.width, self.initial, dtype=self.dtype)
        self.hidden_pivot = Dense(self.width, ("embed", "mlp"), self.initial.kernel(), dtype=self.dtype)
        self.no_pivot = self.param(
            "no_pivot", logical(table, None, "latent"), (self.pivots, *self.slot.shape)
        )
        self.content_norm = Norm(eps=self.eps)
        self.places = Embed(rows, self.width, table, dtype=self.dtype, name="positions")
        self.masks = Embed(self.rounds * self.grid.size, self.width, table, dtype=self.dtype, name="mask")
        self.bridge = Dense(self.width, ("embed", "mlp"), self.initial.kernel(), dtype=self.dtype)
        self.decoder_positions = Embed(rows, self.width, table, dtype=self.dtype)
        self.targets = Embed(self.grid.size, self.width, table, dtype=self.dtype)

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a training pass: known are the slots of even steps; see `Feed.inputs`."""
        known = self._spread(order.slots, order.steps % 2 == 0)
        told = ~known[:, : self.pivots]
        if train:
            told &= jax.random.bernoulli(self.make_rng("dropout"), self.hidden_share, (len(told), 1))
        first = self._first(condition)
        after = (content, first, known, told)
        rows = self._pivot_rows(content, first, known, self.most_known, after)
        weight = 1.0 - known.astype(jnp.float32)
        return dataclasses.replace(rows, slots=np.arange(self.grid.size), weight=weight, rounds=(0, 1))

    def begin(self, batch: int):
        """The pivots' hidden vectors [B, P, D], and which of them there are, bool [B, P]."""
        return jnp.zeros((batch, self.pivots, self.width), self.dtype), jnp.zeros((batch, self.pivots), bool)

    def remember(self, state, hidden, slots):
        """The hidden vectors of pivots, with the condition, as they are predicted; see `Feed.remember`."""
        vectors, told = state
        new = hidden[: len(vectors)].astype(vectors.dtype)
        return put(vectors, slots, new), put(told, slots, jnp.ones(slots.shape, bool))

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of one step: of its level's round, with the slots before `step.start` known; see `Feed.step_inputs`."""
        first = self._first(condition)
        known = self._spread(order.slots, np.arange(self.grid.size) < step.start)
        conditions = len(first)
        known, content = repeat_to(known, conditions), repeat_to(content, conditions)
        if step.segment == 0:
            return self._pivot_rows(content, first, known, step.most_known)
        told = [repeat_to(x, conditions) for x in state]
        return self._dense_rows(content, first, known, *told, step.most_known - self.pivots)

    def enter(self, stage: int, hidden, rows: Rows, cache=None):
        """Rows of the decoder from the encoder's results; those of the second round from the first's."""
        if stage % 2:
            return self._decoder_rows(hidden, rows), cache
        content, first, known, told = rows.aside.after
        vectors = jax.lax.stop_gradient(self.outputs(hidden, rows))
        return self._dense_rows(content, first, known, vectors, told, self.most_known), cache

    def outputs(self, hidden, rows: Rows):
        """[B, M, D] -> [B, n, D]: the rows of the round's level."""
        level = rows.aside.round
        slots = self.grid.level_starts[level] + np.arange(self.grid.level_sizes[level])
        return hidden[:, self.buffer + slots] + self.targets(slots)

    def _first(self, condition):
        """[B, D]: what the condition's rows carry."""
        return condition.vector.astype(self.dtype)

    def _spread(self, slots, known):
        """bool [B, N], canonical, of `known` bool [N] or [B, N] in sequence."""
        known = jnp.broadcast_to(known, slots.shape)
        return put(jnp.zeros(slots.shape, bool), slots, known)

    def _pivot_rows(self, content, first, known, most: int, after=None) -> Rows:
        """The encoder's rows in the first round: `most` pivots at most are known."""
        found, valid = _first_known(known[:, : self.pivots], most)
        x = self.pivot(take(content[:, : self.pivots], found))
        return self._encoder_rows(Known(0, found, valid, after), x, first)

    def _dense_rows(self, content, first, known, vectors, told, most: int) -> Rows:
        """The encoder's rows in the second: all pivots, and slots of the second level, of which `most` are known.

        Args:
          content, first, known: as of `Known.after`.
          vectors, told: the pivots' hidden vectors [B, P, D], and where they count, bool [B, P].
          most: a static bound.
        """
        found, valid = _first_known(known[:, self.pivots :], most)
        dense = self.content(take(content[:, self.pivots :], found))
        pivots = jnp.where(told[..., None], self.hidden_pivot(vectors), self.pivot(self.no_pivot))
        slots = jnp.concatenate(
            [jnp.broadcast_to(np.arange(self.pivots), told.shape), self.pivots + found], axis=1
        )
        valid = jnp.concatenate([jnp.ones(told.shape, bool), valid], axis=1)
        return self._encoder_rows(Known(1, slots, valid), jnp.concatenate([pivots, dense], axis=1), first)

    def _encoder_rows(self, aside: Known, x, first) -> Rows:
        """Rows of the condition, and x [B, m, D] at slots."""
        batch, level = len(x), aside.round
        first = jnp.broadcast_to(first[:, None], (batch, self.buffer, self.width))
        front = jnp.broadcast_to(np.arange(self.buffer), (batch, self.buffer))
        at = jnp.concatenate([front, self.buffer + aside.slots], axis=1)
        x = jnp.concatenate([first, x], axis=1) + self.places(level * self.length + at)
        # Slots that aren't known come later than all that are.
        times = jnp.pad(1 - aside.valid.astype(jnp.int32), ((0, 0), (self.buffer, 0)))
        size = self.grid.level_sizes[level]
        layout = Layout(times, self._places(aside.slots))
        slots = self.grid.level_starts[level] + np.arange(size)
        return Rows(self.content_norm(x), layout, slots, aside=aside, rounds=(level,))

    def _decoder_rows(self, hidden, rows: Rows) -> Rows:
        """Rows of all slots from the encoder's results [B, M, D]."""
        level, slots, valid, _ = rows.aside
        n, x = self.grid.size, self.bridge(hidden)
        masks = jnp.broadcast_to(self.masks(level * n + np.arange(n)), (len(x), n, self.width)).astype(
            x.dtype
        )
        known = jnp.where(valid[..., None], x[:, self.buffer :], take(masks, slots))
        x = jnp.concatenate([x[:, : self.buffer], put(masks, slots, known)], axis=1)
        x = x + self.decoder_positions(level * self.length + np.arange(self.length))
        layout = Layout(np.zeros(self.length, np.int32), self._places(np.arange(n)))
        return dataclasses.replace(rows, x=x, layout=layout)

    def _places(self, slots):
        """int [.., buffer + n, A]: where the slots [.., n] lie, after the condition's rows, which lie nowhere."""
        return static.pad(places(self.grid, slots), [(self.buffer, 0), (0, 0)], -1)


def _first_known(known, most: int):
    """int [B, m]: of slots those that are known (bool [B, n]), at most `most`, then others; bool [B, m]: which are."""
    found = jnp.argsort(~known, axis=-1, stable=True)[:, : max(most, 0)]
    return found, jnp.take_along_axis(known, found, axis=-1)
