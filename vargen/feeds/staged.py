"""The staged feed: the codes of a slot come one by one, each after a stage of the same pass (DnD, arXiv 2410.01912)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from vargen.content import repeat_to, take
from vargen.feeds.rows import Rows
from vargen.feeds.shift import Shift


class Staged(Shift):
    """As shift, in Q stages: behind each but the last, a row is told one more code of the slot that it predicts.

    One table of learned vectors serves all codes of a slot, those that rows carry and those that they are told, which
    are added to what the stage has made of them.

    Attributes:
      grid, slot, width, initial, tokenizer, prefix, positions, target_positions, step_condition, dropout, dtype: as
        `Shift`'s.
      vectors: not here.
    """

    called = "staged"
    one_table = True
    told = True
    looks_ahead = False
    takes_segments = False

    @property
    def stages(self) -> tuple[str, ...]:
        """One for each code of a slot."""
        return tuple(f"blocks_{i}" for i in range(self.slot.shape[0] if self.slot.shape else 1))

    def check(self, ordering) -> None:
        """Raises ValueError for an order that this feed can't honour, and for other slots than of several codes."""
        super().check(ordering)
        if not self.slot.vocab or len(self.slot.shape) != 1:
            raise ValueError(
                "feed staged: expected a tokenizer of several codes a slot, such as rq, and an order such as raster, "
                f"found slots of {self.slot}"
            )
        if self.vectors:
            raise ValueError("feed staged: expected vectors=False, found True")

    def step_inputs(self, state, content, condition, order, step, quantizer=None) -> Rows:
        """As `Shift.step_inputs`, with what is known of the slots that the rows predict."""
        rows = super().step_inputs(state, content, condition, order, step, quantizer)
        return dataclasses.replace(rows, content=take(content, jnp.asarray(rows.slots)))

    def enter(self, stage: int, hidden, rows: Rows, cache=None):
        """The rows of the stage before, and to those that predict the code that they have predicted last."""
        told = repeat_to(self.content(rows.content[..., stage - 1 : stage]), hidden.shape[0])
        told = jnp.pad(told, ((0, 0), (hidden.shape[1] - told.shape[1], 0), (0, 0)))
        return dataclasses.replace(rows, x=hidden + told.astype(hidden.dtype)), cache
