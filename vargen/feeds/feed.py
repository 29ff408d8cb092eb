"""The feed axis: how the known slots reach a prediction."""

from __future__ import annotations

from typing import Any, Protocol

from vargen.feeds.rows import Rows, Step
from vargen.orders import Order, Ordering


class Feed(Protocol):
    """A Linen module that makes the rows of a whole (training) pass, and those of one step of decoding: the same rows.

    Attributes:
      stages: the names of the stages of blocks that it drives, one after another.
      cached: whether rows that are known are remembered in caches.
      unrolled: whether every step has arithmetic of its own, so that no two run in one scan.
      takes_prefix: whether it takes a condition of several rows.
      modulates_rows: whether every row brings a condition of its own (`Rows.condition`).
      ahead: how many rows come before those that predict, in the first step.
    """

    stages: tuple[str, ...]
    cached: bool
    unrolled: bool
    takes_prefix: bool
    modulates_rows: bool
    ahead: int

    def check(self, ordering: Ordering) -> None:
        """Raises ValueError for an order that it can't honour."""
        ...

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass.

        Args:
          content: [B, N, *slot.shape], canonical.
          condition: `Condition` of B.
          order: of `Ordering.training`, or of `decoding` where that is the same for all examples.
          quantizer: the tokenizer's quantiser parameters.
          train: whether dropout is on.
        """
        ...

    def begin(self, batch: int) -> Any:
        """The state of decoding before the first step, for a batch of B; a pytree of arrays."""
        ...

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of one step: those of `inputs` at its slots.

        Args:
          state: of `begin` and `absorb`.
          content: [B, N, *slot.shape], what is known so far; anything elsewhere.
          condition: `Condition` of B, or of a multiple of it (with and without label, under guidance).
          order, step: the order of generation, and the step.
          quantizer: the tokenizer's quantiser parameters.
        """
        ...

    def absorb(self, state, content, step: Step, quantizer=None) -> Any:
        """The state after a step, whose contents [B, N, *slot.shape] holds."""
        ...

    def enter(self, stage: int, hidden, rows: Rows) -> Rows:
        """Rows of a stage after the first, from the results [B, M, D] of the one before and its rows."""
        ...

    def outputs(self, hidden, rows: Rows) -> Any:
        """[B, M, D] of the last stage -> [B, n, D], a row for each of `rows.slots`."""
        ...
