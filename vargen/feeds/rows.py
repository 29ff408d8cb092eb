"""What a feed hands to the blocks, and small tools that all feeds share."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.layers import Dense, Embed, Initial
from vargen.layout import HIDDEN, Layout
from vargen.slots import Grid, Slot


@dataclasses.dataclass(frozen=True)
class Rows:
    """The input of a stage of blocks.

    Attributes:
      x: [B, M, D].
      layout: who sees whom, and where the rows lie.
      slots: int [N] or [B, N]: the slot that each row of the feed's `outputs` predicts.
      weight: None (all predictions count), or float32 [B, N]: 1 where the prediction is asked for.
      aside: what the feed needs again between two stages.
      condition: None (every row is modulated by the condition's vector), or [B, M, D]: each by its own.
    """

    x: jax.Array
    layout: Layout
    slots: Any
    weight: Any = None
    aside: Any = None
    condition: Any = None


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of decoding, or one of several alike under `lax.scan`, or several at once whose contents are known.

    Attributes:
      index: the step (int, or traced in a scan, as are `start` and `count`).
      start: position in the generation sequence of its first slot.
      count: slots that it generates.
      size: slots that it computes, at least `count` (static).
      most_known: a static bound on `start`.
      before: slots of the step before, whose contents have not been in a pass yet (static).
      begins: whether no pass came before (static).
      segment: number of the segment whose slots it generates (static).
    """

    index: Any
    start: Any
    count: Any
    size: int
    most_known: int
    before: int = 0
    begins: bool = False
    segment: int = 0

    def at(self) -> Any:
        """int [size]: positions in the generation sequence."""
        return static.arange(self.start, self.size)


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


class Content(nn.Module):
    """Slots' contents as vectors of the model's width: [B, n, *slot.shape] -> [B, n, D]; one code, or numbers."""

    slot: Slot
    width: int
    initial: Initial
    dtype: Any = None

    @nn.compact
    def __call__(self, content):
        if not self.slot.vocab:
            init = self.initial.kernel()
            return Dense(self.width, ("latent", "embed"), init, dtype=self.dtype, name="latents")(content)
        table = self.initial.table()
        return Embed(self.slot.vocab, self.width, table, "vocab", self.dtype, name="codes")(content)
