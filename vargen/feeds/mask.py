"""The mask feed: known contents, and mask embeddings elsewhere; everyone sees everyone (MaskGIT, MAR)."""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.feeds.rows import Content, Rows, Step, repeat_to, take_slots
from vargen.layers import Dense, Embed, Initial, Norm, logical
from vargen.limits import Between
from vargen.mixers.layout import Layout
from vargen.orders import Grid, Order


class Mask(nn.Module):
    """Masked prediction, in one stack (MaskGIT, arXiv 2202.04200) or with an encoder of the known slots alone.

    With `encoder_decoder` (MAE's form; MAR, arXiv 2406.11838) the first stack sees only the condition's
    rows and the known slots; the second sees those results and a mask embedding at every other slot. The
    encoder's length is the most slots that can be known, so that shapes don't depend on the mask; rows beyond
    the known ones are hidden by their step.

    Attributes:
      grid: the slots.
      vocab, channels: the tokenizer's: codes where vocab > 0, else latents.
      width: D.
      initial: of the parameters.
      most_known: the most slots known in a training pass.
      encoder_decoder: two stacks instead of one.
      buffer: rows that carry the condition.
      dtype: compute dtype.
    """

    grid: Grid
    vocab: int
    channels: int
    width: int
    initial: Initial
    most_known: int
    encoder_decoder: bool = True
    buffer: Annotated[int, Between(1, 2**16)] = 64
    dtype: Any = jnp.float32

    cached = False
    by_level = False
    lead = 0
    takes_rows = False
    step_condition = False

    @property
    def visibility(self):
        return "some" if self.encoder_decoder else "all"

    @property
    def stacks(self):
        return ("encoder", "decoder") if self.encoder_decoder else ("blocks",)

    def check(self, order) -> None:
        """Raises ValueError for an order that has no masked training pass."""
        if not order.random_decoding:
            raise ValueError("feed mask: needs an order of random sets, such as random_sets")

    def setup(self):
        table = self.initial.table()
        size = self.buffer + self.grid.size
        self.content = Content(self.vocab, self.width, self.initial, self.dtype)
        self.content_norm = Norm()
        self.positions = Embed(size, self.width, table, dtype=self.dtype)
        self.mask = self.param("mask", logical(table, None, "embed"), (1, self.width))
        self.targets = Embed(self.grid.size, self.width, table, dtype=self.dtype)
        if self.encoder_decoder:
            init = self.initial.kernel()
            self.bridge = Dense(self.width, ("embed", "mlp"), init, dtype=self.dtype)
            self.decoder_positions = Embed(size, self.width, table, dtype=self.dtype)

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a training pass: known are the slots of step 0.

        Args:
          content: codes [B, N] or latents [B, N, C], canonical.
          condition: `Condition`, of which the vector is used.
          order: slots [B, N], steps [B, N] of 0 (known) and 1 (predicted).
          quantizer, train: unused here.
        """
        known = jnp.sum(order.steps == 0, axis=-1, keepdims=True)
        rows = self._rows(content, condition, order.slots, known, self.most_known)
        asked = jnp.zeros(order.steps.shape, jnp.float32)
        asked = jax.vmap(lambda w, s, v: w.at[s].set(v))(
            asked, order.slots, (order.steps > 0).astype(jnp.float32)
        )
        return Rows(rows.x, rows.layout, np.arange(self.grid.size), asked, rows.memory)

    def begin(self, batch: int):
        """The state of decoding: none."""
        return ()

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of one step: the whole picture, with the slots before `step.start` known."""
        conditions = condition.vector.shape[0]
        slots, content = repeat_to(order.slots, conditions), repeat_to(content, conditions)
        return self._rows(content, condition, slots, step.start, step.most_known)

    def absorb(self, state, content, step: Step, quantizer=None):
        """The state after a step: none."""
        return state

    def between(self, hidden, rows: Rows) -> Rows:
        """Rows of the decoder from the encoder's results [B, M, D]."""
        slots, valid = rows.memory
        x = self.bridge(hidden)
        mask = self.mask.astype(x.dtype)
        known = jnp.where(valid[..., None], x[:, self.buffer :], mask)
        canvas = jnp.broadcast_to(mask, (x.shape[0], self.grid.size, self.width))
        canvas = jax.vmap(lambda c, s, v: c.at[s].set(v))(canvas, slots, known)
        x = jnp.concatenate([x[:, : self.buffer], canvas], axis=1)
        size = self.buffer + self.grid.size
        x = x + self.decoder_positions(np.arange(size))
        return Rows(
            x,
            Layout(np.zeros(size, np.int32), self._places(np.arange(self.grid.size))),
            rows.slots,
            rows.weight,
        )

    def outputs(self, hidden, rows: Rows):
        """[B, M, D] -> [B, N, D], canonical, each with its slot's embedding added (MAR's before the head)."""
        return hidden[:, self.buffer :] + self.targets(np.arange(self.grid.size))

    def _rows(self, content, condition, slots, known, most_known):
        """Rows with the first `known` slots of each sequence known ([B, 1] or int, at most `most_known`)."""
        batch, n = slots.shape
        first = condition.vector[:, None].astype(self.dtype)
        first = jnp.broadcast_to(first, (batch, self.buffer, self.width))
        slots = slots[:, :most_known]
        if self.encoder_decoder:
            valid = jnp.broadcast_to(np.arange(most_known) < known, (batch, most_known))
            x = jnp.concatenate([first, self.content(take_slots(content, slots))], axis=1)
            front = jnp.broadcast_to(np.arange(self.buffer), (batch, self.buffer))
            x = x + self.positions(jnp.concatenate([front, self.buffer + slots], axis=1))
            if isinstance(known, (int, np.integer)) and known == most_known:
                steps = np.zeros(self.buffer + most_known, np.int32)
            else:
                steps = jnp.pad(1 - valid.astype(jnp.int32), ((0, 0), (self.buffer, 0)))
            return Rows(
                self.content_norm(x), Layout(steps, self._places(slots)), np.arange(n), memory=(slots, valid)
            )
        seen = jnp.zeros((batch, n), bool)
        seen = jax.vmap(lambda w, s, v: w.at[s].set(v))(
            seen, slots, jnp.broadcast_to(np.arange(most_known) < known, slots.shape)
        )
        x = jnp.where(seen[..., None], self.content(content), self.mask.astype(self.dtype))
        x = jnp.concatenate([first, x], axis=1) + self.positions(np.arange(self.buffer + n))
        layout = Layout(np.zeros(self.buffer + n, np.int32), self._places(np.arange(n)))
        return Rows(self.content_norm(x), layout, np.arange(n))

    def _places(self, slots):
        """int [.., buffer + n, A]: where the slots [.., n] lie, after the buffer's rows, which lie nowhere."""
        module = np if isinstance(slots, np.ndarray) else jnp
        places = module.asarray(self.grid.places)[slots]
        pad = [(0, 0)] * (places.ndim - 2) + [(self.buffer, 0), (0, 0)]
        return module.pad(places, pad, constant_values=-1)
