"""The mask feed: known contents, and mask embeddings elsewhere; everyone sees everyone (MaskGIT, MAR)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.content import put, repeat_to, take
from vargen.feeds.feed import Plain
from vargen.feeds.rows import Content, Rows, Step, places
from vargen.layers import Dense, Dropout, Embed, Initial, Norm, logical
from vargen.layout import Layout
from vargen.limits import EPS, RATE, SHARE, Between, OneOf
from vargen.orders import Order
from vargen.slots import Grid, Slot


class Mask(Plain, nn.Module):
    """Masked prediction, in one stage (MaskGIT, arXiv 2202.04200) or with an encoder of the known slots alone.

    With `encoder_decoder` (MAE's form; MAR, arXiv 2406.11838) the first stage sees only the condition's
    rows and the known slots; the second sees those results and a mask embedding at every other slot. The
    encoder's length is the most slots that can be known, so that shapes don't depend on the mask; rows beyond
    the known ones are hidden by their time.

    Attributes:
      grid: the slots.
      slot: what one holds.
      width: D.
      initial: of the parameters.
      most_known: the most slots known in a training pass.
      encoder_decoder: two stages instead of one.
      buffer: rows that carry the condition.
      positions: adds a learned embedding of each row's place.
      norm: whether the rows go through a norm first.
      eps: of this norm.
      target_positions: adds a learned embedding of its slot to each prediction (MAR).
      counts: what training's loss is the mean over: the masked "slots" of the batch; its "pictures", each by the mean
        over its own masked slots (MaskGIT); or "all" slots, known ones too (MaskGIL, arXiv 2507.13032, official code).
      known_weight: of what is known beside what is masked, where it isn't "all" (TiTok, arXiv 2406.07550: 0.1).
      dropout: rate on the rows.
      dtype: compute dtype.
    """

    grid: Grid
    slot: Slot
    width: int
    initial: Initial
    most_known: int
    encoder_decoder: bool = True
    buffer: Annotated[int, Between(1, 2**16)] = 64
    positions: bool = True
    norm: bool = True
    eps: Annotated[float, EPS] = 1e-6
    target_positions: bool = True
    counts: Annotated[str, OneOf("slots", "pictures", "all")] = "slots"
    known_weight: Annotated[float, SHARE] = 0.0
    dropout: Annotated[float, RATE] = 0.0
    dtype: Any = jnp.float32

    cached = False
    redraws = "rest"

    @property
    def stages(self):
        """The names of the stages."""
        return ("encoder", "decoder") if self.encoder_decoder else ("blocks",)

    @property
    def length(self) -> int:
        """Rows in all."""
        return self.buffer + self.grid.size

    def prefill(self, steps: list[Step]) -> list[Step]:
        """None: every pass sees all contents that are known."""
        return []

    def check(self, ordering) -> None:
        """Raises ValueError for an order that has no masked training pass."""
        if not ordering.masked:
            raise ValueError("feed mask: needs an order of random sets, such as random_sets")

    def setup(self):
        table = self.initial.table()
        self.drop = Dropout(self.dropout)
        size = self.buffer + self.grid.size
        self.content = Content(self.slot, self.width, self.initial, dtype=self.dtype)
        if self.norm:
            self.content_norm = Norm(eps=self.eps)
        if self.positions:
            self.places = Embed(size, self.width, table, dtype=self.dtype, name="positions")
        self.mask = self.param("mask", logical(table, None, "embed"), (1, self.width))
        if self.target_positions:
            self.targets = Embed(self.grid.size, self.width, table, dtype=self.dtype)
        if self.encoder_decoder:
            init = self.initial.kernel()
            self.bridge = Dense(self.width, ("embed", "mlp"), init, dtype=self.dtype)
            if self.positions:
                self.decoder_positions = Embed(size, self.width, table, dtype=self.dtype)

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a training pass: known are the slots of step 0 (steps [B, N] of 0 and 1); see `Feed.inputs`."""
        known = jnp.sum(order.steps == 0, axis=-1, keepdims=True)
        rows = self._rows(content, condition, order.slots, known, self.most_known, train)
        if self.counts == "all":
            return rows
        asked = jnp.zeros(order.steps.shape, jnp.float32)
        asked = put(asked, order.slots, jnp.where(order.steps > 0, 1.0, self.known_weight))
        if self.counts == "pictures":
            asked = asked / jnp.maximum(jnp.sum(asked, axis=-1, keepdims=True), 1.0)
        return dataclasses.replace(rows, weight=asked)

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of one step: the whole picture, with the slots before `step.start` known; see `Feed.step_inputs`."""
        conditions = condition.vector.shape[0]
        slots, content = repeat_to(order.slots, conditions), repeat_to(content, conditions)
        return self._rows(content, condition, slots, step.start, step.most_known)

    def enter(self, stage: int, hidden, rows: Rows, cache=None):
        """Rows of the decoder from the encoder's results [B, M, D]."""
        slots, valid = rows.aside
        x = self.bridge(hidden)
        mask = self.mask.astype(x.dtype)
        known = jnp.where(valid[..., None], x[:, self.buffer :], mask)
        canvas = jnp.broadcast_to(mask, (x.shape[0], self.grid.size, self.width))
        x = jnp.concatenate([x[:, : self.buffer], put(canvas, slots, known)], axis=1)
        if self.positions:
            x = x + self.decoder_positions(np.arange(self.buffer + self.grid.size))
        return Rows(x, self._everyone(), rows.slots, rows.weight), cache

    def outputs(self, hidden, rows: Rows):
        """[B, M, D] -> [B, N, D], canonical."""
        hidden = hidden[:, self.buffer :]
        return hidden + self.targets(np.arange(self.grid.size)) if self.target_positions else hidden

    def _rows(self, content, condition, slots, known, most_known, train: bool = False):
        """Rows with the first `known` slots of each sequence known ([B, 1] or int, at most `most_known`)."""
        batch, n = slots.shape
        first = condition.vector[:, None].astype(self.dtype)
        first = jnp.broadcast_to(first, (batch, self.buffer, self.width))
        slots = slots[:, :most_known]
        if self.encoder_decoder:
            valid = jnp.broadcast_to(np.arange(most_known) < known, (batch, most_known))
            x = jnp.concatenate([first, self.content(take(content, slots))], axis=1)
            front = jnp.broadcast_to(np.arange(self.buffer), (batch, self.buffer))
            x = self._made(x, jnp.concatenate([front, self.buffer + slots], axis=1), train)
            if static.known(known) and known == most_known:
                times = np.zeros(self.buffer + most_known, np.int32)
            else:  # slots that aren't known come later than all that are
                times = jnp.pad(1 - valid.astype(jnp.int32), ((0, 0), (self.buffer, 0)))
            layout = Layout(times, self._places(slots))
            return Rows(x, layout, np.arange(n), aside=(slots, valid))
        seen = jnp.broadcast_to(np.arange(most_known) < known, slots.shape)
        seen = put(jnp.zeros((batch, n), bool), slots, seen)
        x = jnp.where(seen[..., None], self.content(content), self.mask.astype(self.dtype))
        x = self._made(jnp.concatenate([first, x], axis=1), np.arange(self.buffer + n), train)
        return Rows(x, self._everyone(), np.arange(n))

    def _made(self, x, places, train):
        """Rows of x [B, M, D] at places int [M] or [B, M]."""
        x = x + self.places(places) if self.positions else x
        x = self.content_norm(x) if self.norm else x
        return self.drop(x, train)

    def _everyone(self) -> Layout:
        """Buffer and grid, all of which see one another."""
        n = self.grid.size
        return Layout(np.zeros(self.buffer + n, np.int32), self._places(np.arange(n)))

    def _places(self, slots):
        """int [.., buffer + n, A]: where the slots [.., n] lie, after the buffer's rows, which lie nowhere."""
        return static.pad(places(self.grid, slots), [(self.buffer, 0), (0, 0)], -1)
