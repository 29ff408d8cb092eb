"""What a feed hands to the blocks, and small tools that all feeds share."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.content import repeat_to
from vargen.layers import Dense, Embed, Initial
from vargen.layout import HIDDEN, Layout
from vargen.sharding import by_batch
from vargen.slots import Grid, Slot


@dataclasses.dataclass(frozen=True)
class Rows:
    """The input of a stage of blocks.

    Attributes:
      x: [B, M, D].
      layout: who sees whom, and where the rows lie.
      slots: int [N] or [B, N]: the slot that each row of the feed's `outputs` predicts.
      weight: None (all predictions count), or float32 [B, N]: how much each counts.
      aside: what the feed needs again between two stages.
      condition: None (every row is modulated by the condition's vector), or [B, M, D]: each by its own; with `owner`
        [B, G, D].
      row: None, or int [M]: the places in the sequence of what the rows predict, where `Feed.conditions` has theirs.
      owner: None, or int [M], NumPy: by which of the G conditions each row is modulated; -1: by none.
      rounds: which rounds through the stages they go, one after another (`Feed.rounds`).
      content: None, or [b, N, *slot.shape]: what those slots hold, of which a stage is told what the ones before it
        have predicted; b examples, of which conditions may be a multiple.
    """

    x: jax.Array
    layout: Layout
    slots: Any
    weight: Any = None
    aside: Any = None
    condition: Any = None
    row: Any = None
    owner: np.ndarray | None = None
    content: Any = None
    rounds: tuple[int, ...] = (0,)


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of decoding, or one of several alike under `lax.scan`, or several at once whose contents are known, or
    supposed.

    Attributes:
      index: the step (int, or traced in a scan, as are `start` and `count`).
      start: position in the generation sequence of its first slot; int [B] where it is `speculative`.
      count: slots that it generates.
      size: slots that it computes, at least `count` (static).
      most_known: a static bound on `start`.
      before: slots of the step before, whose contents have not been in a pass yet; of steps of several sizes in a loop
        the most that any has (static).
      begins: whether no pass came before (static).
      speculative: whether contents from `start` on are drafts, which may change, and steps hold one slot each (static).
      segment: number of the segment, or in an order `by_level` the level, whose slots it generates (static).
    """

    index: Any
    start: Any
    count: Any
    size: int
    most_known: int
    before: int = 0
    begins: bool = False
    speculative: bool = False
    segment: int = 0

    def at(self) -> Any:
        """int [size], or [B, size] where it is speculative: positions in the generation sequence."""
        return static.arange(self.start[:, None] if self.speculative else self.start, self.size)


def places(grid: Grid, slots: Any) -> Any:
    """int [.., n, A]: where slots int [.., n] lie."""
    return static.module(slots).asarray(grid.places)[slots]


def key_times(times: np.ndarray, padding: Any) -> Any:
    """int [M], or [B, M] where there is padding: the times of rows that may be seen.

    Args:
      times: int [M]: of all rows, the condition's first.
      padding: None, or bool [B, P]: which of the condition's rows nobody may look at.
    """
    if padding is None:
        return times
    return jnp.where(static.pad(padding, [(0, len(times) - padding.shape[-1])]), HIDDEN, times)


def each(x: Any, batch: int) -> Any:
    """[n, ...] as it is, or [b, n, ...] for every one of a batch that is a multiple of b; of vectors or places."""
    return repeat_to(x, batch) if x.ndim == 3 else x


def whole(layout: Layout, condition: Any) -> Layout:
    """The layout of rows that are a whole pass: they see themselves, all of them, but for a condition's padding."""
    return dataclasses.replace(
        layout, start=None, key_times=None if condition.padding is None else layout.key_times
    )


class Content(nn.Module):
    """Slots' contents as vectors of the model's width, of which several codes of a slot, or a code and numbers beside
    it, are the sum.

    Attributes:
      slot: what one holds.
      width: D.
      initial: of the parameters.
      vectors: codes come as the tokenizer's vectors, float32 [B, n, *slot.shape, C], and go through a linear map
        instead of into a learned table.
      shared: one table for all codes of a slot, or one each.
      dtype: compute dtype.
      bias: of the map of numbers and vectors.
    """

    slot: Slot
    width: int
    initial: Initial
    vectors: bool = False
    shared: bool = False
    dtype: Any = None
    bias: bool = True

    @nn.compact
    def __call__(self, content):
        """[B, n, *slot.shape], or such vectors -> [B, n, D]."""
        several = bool(self.slot.vocab and self.slot.shape)
        if self.slot.coded:
            codes, numbers = self.slot.apart(content)
            return by_batch(self._map(numbers)) + by_batch(self._table(self.slot.coded, codes))
        if not self.slot.vocab or self.vectors:
            x = self._map(content)
        else:
            size = self.slot.vocab
            if several and not self.shared:
                content = content + size * np.arange(self.slot.shape[0])
                size *= self.slot.shape[0]
            x = self._table(size, content)
        x = by_batch(x)
        return by_batch(jnp.sum(x, axis=-2)) if several else x

    def _map(self, numbers):
        init = self.initial.kernel()
        return Dense(self.width, ("latent", "embed"), init, self.bias, self.dtype, name="latents")(numbers)

    def _table(self, size: int, codes):
        return Embed(size, self.width, self.initial.table(), "vocab", self.dtype, name="codes")(codes)
