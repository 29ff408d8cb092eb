"""What a feed hands to the blocks, and small tools that all feeds share."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.layers import Dense, Embed, Initial
from vargen.mixers.layout import Layout


@dataclasses.dataclass(frozen=True)
class Rows:
    """The input of a stack of blocks.

    Attributes:
      x: [B, M, D].
      layout: steps and positions of the rows.
      slots: int [N] or [B, N]: the slot that each row of the feed's `outputs` predicts.
      weight: None (all predictions count), or float32 [B, N]: 1 where the prediction is asked for.
      memory: what the feed needs again between two stacks.
      condition: None (every row is modulated by the condition's vector), or [B, M, D]: each by its own.
    """

    x: jax.Array
    layout: Layout
    slots: Any
    weight: Any = None
    memory: Any = None
    condition: Any = None


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of decoding, or one of several alike under `lax.scan`.

    Attributes:
      index: the step (int, or traced in a scan, as are `start` and `count`).
      start: position in the generation sequence of its first slot.
      count: slots that it generates.
      rows: slots that it computes, at least `count` (static).
      most_known: a static bound on `start`.
    """

    index: Any
    start: Any
    count: Any
    rows: int
    most_known: int

    def positions(self):
        """int [rows]: positions in the generation sequence."""
        offsets = np.arange(self.rows)
        return self.start + (offsets if isinstance(self.start, (int, np.integer)) else jnp.asarray(offsets))


class Content(nn.Module):
    """Slots' contents as vectors of the model's width: codes [B, n] or latents [B, n, C] -> [B, n, D]."""

    vocab: int
    width: int
    initial: Initial
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, content):
        if self.vocab:
            table = self.initial.table()
            return Embed(self.vocab, self.width, table, "vocab", self.dtype, name="codes")(content)
        init = self.initial.kernel()
        return Dense(self.width, ("latent", "embed"), init, dtype=self.dtype, name="latents")(content)


def take_slots(content, slots):
    """content [B, N, ...] at slots [n] or [B, n] -> [B, n, ...]."""
    if slots.ndim == 1:
        return jnp.take(content, slots, axis=1)
    return jax.vmap(lambda c, s: jnp.take(c, s, axis=0))(content, slots)


def repeat_to(x, batch: int):
    """x [B, ...] repeated to a multiple of its batch: rows with a condition first, then those without."""
    times = batch // x.shape[0]
    return x if times == 1 else jnp.tile(x, (times,) + (1,) * (x.ndim - 1))
