"""The feed axis: how the known slots reach a prediction."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from vargen.feeds.rows import Rows, Step
from vargen.layers import Linen
from vargen.orders import Order, Ordering
from vargen.orders.order import Proposes
from vargen.slots import Grid


class Feed(Linen, Protocol):
    """A Linen module that makes the rows of a whole (training) pass, and those of one step of decoding: the same rows.

    Attributes:
      stages: the names of the stages of blocks that it drives, one after another.
      rounds: how often a whole pass goes through the stages: in each round rows of other slots predict, one level's
        after another's; a step of decoding has one round.
      cached: whether rows that are known are remembered in caches.
      joins: whether steps of several sizes may share a loop: one may bring contents that a pass had already, and ask
        for slots beyond its own.
      loops: whether decoding runs its steps in loops; else each has arithmetic of its own.
      takes_prefix: whether it takes a condition of several rows.
      takes_segments: whether it takes a sequence of several segments (`Order.segments`).
      takes_partial: whether it takes a training pass over some of the slots (`Ordering.partial`).
      modulates_rows: whether rows bring conditions of their own (`Rows.condition`).
      drafts: whether its rows show what a `JointHead` has drafted: contents are `Noised` then.
      looks_ahead: whether it makes rows of a speculative step.
      hides: whether a slot's row shows nothing where its code is `UNSEEN`.
      told: whether rows of later stages are told codes that the ones before have predicted (`Rows.content`).
      redraws: the most that an order's steps may propose (`Ordering.proposes`): "step", or slots that are drawn again.
      branches: of each way that rows may go the numbers of its stages; which way they go, `Layout.branch` says. Behind
        each after the first stands the head with parameters of its own, `<its last stage>_head`.
      trunk: how many stages, the first ones, have no norm behind them, as others go on where they end.
      emphasis: None, or float32 [N], canonical: how much the training loss counts each slot, over the others.
      length: how many rows a cache must hold.
      lie: [N, A], canonical: where slots lie, as heads are told.
    """

    @property
    def stages(self) -> tuple[str, ...]: ...
    @property
    def rounds(self) -> int: ...
    @property
    def cached(self) -> bool: ...
    @property
    def joins(self) -> bool: ...
    @property
    def loops(self) -> bool: ...
    @property
    def takes_prefix(self) -> bool: ...
    @property
    def takes_segments(self) -> bool: ...
    @property
    def takes_partial(self) -> bool: ...
    @property
    def modulates_rows(self) -> bool: ...
    @property
    def drafts(self) -> bool: ...
    @property
    def looks_ahead(self) -> bool: ...
    @property
    def hides(self) -> bool: ...
    @property
    def told(self) -> bool: ...
    @property
    def redraws(self) -> Proposes: ...
    @property
    def branches(self) -> tuple[tuple[int, ...], ...]: ...
    @property
    def trunk(self) -> int: ...
    @property
    def emphasis(self) -> np.ndarray | None: ...
    @property
    def length(self) -> int: ...
    @property
    def lie(self) -> np.ndarray: ...

    def reads_memory(self, stage: int) -> bool:
        """Whether rows of a stage look at `Layout.memory` instead of each other."""
        ...

    def check(self, ordering: Ordering) -> None:
        """Raises ValueError for an order that it can't honour."""
        ...

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass.

        Args:
          content: [B, N, *slot.shape], canonical; `Noised` where it drafts.
          condition: `Condition` of B.
          order: of `Ordering.training`, or of `decoding` where that is the same for all examples.
          quantizer: the tokenizer's quantiser parameters.
          train: whether dropout is on.
        """
        ...

    def alike(self, step: Step) -> Any:
        """What steps have in common that can run in one scan, for feeds with a cache: a key, equal for these alone."""
        ...

    def prefill(self, steps: list[Step]) -> list[Step]:
        """The passes that bring the contents of given steps (the first ones) into the cache."""
        ...

    def conditions(self, condition, at) -> Any:
        """[B, n, D]: what modulates the rows that predict the slots at the places int [n] in the sequence, but for the
        first step's, where that depends on the condition and the place alone; None where it depends on more, or nothing
        modulates rows."""
        ...

    def init_cache(self, batch: int, length: int) -> dict[str, Any]:
        """What is remembered beside the stages' caches, before the first row and for `length` of them."""
        ...

    def begin(self, batch: int) -> Any:
        """The state of decoding before the first step, for a batch of B; a pytree of arrays."""
        ...

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of one step: those of `inputs` at its slots.

        Args:
          state: of `begin` and `absorb`.
          content: [B, N, *slot.shape], what is known so far, anything elsewhere; `Noised` where it drafts.
          condition: `Condition` of B, or of a multiple of it (with and without label, under guidance).
          order, step: the order of generation, and the step.
          quantizer: the tokenizer's quantiser parameters.
        """
        ...

    def absorb(self, state, content, step: Step, quantizer=None) -> Any:
        """The state after a step, whose contents [B, N, *slot.shape] holds."""
        ...

    def remember(self, state, hidden, slots) -> Any:
        """The state with what is kept of a step's hidden vectors, before `absorb`.

        Args:
          state: of `begin`.
          hidden: [R B, n, D], of rows with the condition first.
          slots: int [B, n]: which they predict; N where there is none.
        """
        ...

    def enter(self, stage: int, hidden, rows: Rows, cache: Any = None) -> tuple[Rows, Any]:
        """Rows of a stage after the first, from the results [B, M, D] of the one before and its rows.

        Args:
          stage: its number, counted on from round to round.
          hidden, rows: of the stage before.
          cache: of `init_cache`, in decoding.

        Returns:
          The rows, and the cache.
        """
        ...

    def outputs(self, hidden, rows: Rows) -> Any:
        """[B, M, D] of the last stage -> [B, n, D], a row for each of `rows.slots`."""
        ...


class Plain:
    """What most feeds have in common: one stage whose rows look at each other, no state."""

    grid: Grid

    stages: tuple[str, ...] = ("blocks",)
    rounds = 1
    joins = False
    loops = True
    takes_prefix = False
    takes_segments = False
    takes_partial = False
    modulates_rows = False
    drafts = False
    looks_ahead = False
    hides = False
    told = False
    redraws: Proposes = "step"
    trunk = 0
    emphasis = None

    @property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """One, of all stages."""
        return (tuple(range(len(self.stages))),)

    @property
    def lie(self) -> np.ndarray:
        """In the grid."""
        return self.grid.places

    def reads_memory(self, stage: int) -> bool:
        """No stage does."""
        return False

    def alike(self, step: Step) -> Any:
        """Steps of one size."""
        return step.size

    def prefill(self, steps: list[Step]) -> list[Step]:
        """All steps in one pass."""
        if not steps:
            return []
        size = steps[-1].start + steps[-1].size
        return [Step(0, 0, size, size, 0)]

    def conditions(self, condition, at) -> Any:
        """None is known beforehand."""
        return None

    def init_cache(self, batch: int, length: int) -> dict[str, Any]:
        """Nothing."""
        return {}

    def begin(self, batch: int) -> Any:
        """The state of decoding: none."""
        return ()

    def remember(self, state, hidden, slots) -> Any:
        """Nothing is kept."""
        return state

    def absorb(self, state, content, step: Step, quantizer=None) -> Any:
        """The state after a step: none."""
        return state

    def outputs(self, hidden, rows: Rows) -> Any:
        """[B, M, D] -> [B, n, D]: the last rows predict, one for each slot."""
        return hidden[:, hidden.shape[1] - rows.slots.shape[-1] :]


class Pending(Plain):
    """Feeds whose pass begins with the contents of the step before."""

    def alike(self, step: Step) -> Any:
        """Steps of one size after steps of one size."""
        return step.begins, step.before, step.size

    def prefill(self, steps: list[Step]) -> list[Step]:
        """None: the first step that is drawn brings them."""
        return []


class Turned(Pending):
    """Those that turn rows of their own by the rotary places of H heads."""

    width: int
    heads: int

    def check(self, ordering: Ordering) -> None:
        """Raises ValueError for heads that don't fit."""
        axes = self.grid.places.shape[1]
        if self.width % self.heads or (self.width // self.heads) % (2 * axes):
            raise ValueError(
                f"config field mixer.heads: expected heads of a multiple of {2 * axes} channels out of "
                f"{self.width}, found {self.heads}"
            )
