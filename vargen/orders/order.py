"""What an order is, and what makes one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, Protocol

import jax
import numpy as np

from vargen.slots import Grid

if TYPE_CHECKING:
    from vargen.draws import Draws

# What a step of decoding looks at, see `Ordering`.
Proposes = Literal["step", "rest", "level"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Order:
    """A sequence of slots and the step at which each is generated.

    Attributes:
      slots: int32 [N] or, where examples differ, [B, N]: the i-th slot in generation sequence.
      steps: int32 [N] or [B, N], non-decreasing: the step of the i-th slot. A NumPy array where it is known
        before tracing, as decoding requires: sizes of steps are shapes.
      given: how many slots of the sequence, the first ones, are known before decoding begins; whole steps.
      exists: bool [N] or [B, N]: which entries there are, those before the others; the others' slots mean nothing, and
        their step is the last. None for all.
      segments: int32 [N] or [B, N]: the number of the segment of the i-th slot in sequence, where there are several; of
        decoding a NumPy array, the same for all slots of a step. None where there is one.
      parts: how many steps each part of the sequence takes, in turn, where a step looks at all of its part that is
        unknown (levels drawn in several steps); () where a step looks at its own slots or at all the others.
    """

    slots: Any
    steps: Any
    given: int = dataclasses.field(default=0, metadata={"static": True})
    exists: Any = None
    segments: Any = None
    parts: tuple[int, ...] = dataclasses.field(default=(), metadata={"static": True})

    @property
    def sizes(self) -> np.ndarray:
        """int [T]: slots generated per step (static orders only)."""
        return np.bincount(np.asarray(self.steps))

    @property
    def starts(self) -> np.ndarray:
        """int [T]: position in the sequence at which each step starts (static orders only)."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]])

    @property
    def ends(self) -> np.ndarray:
        """int [T]: position in the sequence at which the part of each step ends; without parts the step itself."""
        ends = np.cumsum(self.sizes)
        return np.repeat(ends[np.cumsum(self.parts) - 1], self.parts) if self.parts else ends


def cut(slots: Any, known: int, sizes: np.ndarray) -> Order:
    """Slots int [N] or [B, N] in steps of `sizes` [T], after one of those that are known, if there are any."""
    sizes = np.concatenate([[known], sizes]) if known else sizes
    return Order(slots, np.repeat(np.arange(len(sizes)), sizes), given=known)


class Ordering(Protocol):
    """The order axis: makes an `Order` for a training pass and one for decoding.

    Attributes:
      grid: the slots that it orders.
      random: whether examples have different orders in training.
      random_decoding: whether they have in decoding.
      foretold: whether the slots that are known tell which comes next, also where it is random.
      partial: whether a training pass may have some of the slots alone (`Order.exists`).
      thins: whether those that it leaves out are of the last level, for each example its own; else whole levels, for
        all examples alike.
      masked: whether a training pass has slots that are known, those of even steps, and asks for the others.
      most_known: the most slots that are known, and not predicted, in a training pass.
      by_level: whether steps are random sets of one level, after those of the levels before; in training each level
        has known slots and others then.
      proposes: what a step of decoding looks at: "step", the slots that it keeps; "rest", every slot that is unknown;
        or "level", every one of its part of the sequence (`Order.parts`). Of more slots than it has a step keeps as
        many as these: which, says `revise`.
    """

    @property
    def grid(self) -> Grid: ...
    @property
    def random(self) -> bool: ...
    @property
    def random_decoding(self) -> bool: ...
    @property
    def foretold(self) -> bool: ...
    @property
    def partial(self) -> bool: ...
    @property
    def thins(self) -> bool: ...
    @property
    def most_known(self) -> int: ...
    @property
    def masked(self) -> bool: ...
    @property
    def by_level(self) -> bool: ...
    @property
    def proposes(self) -> Proposes: ...

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """The order of a training pass: what is predicted from what.

        Args:
          key: PRNG key; None will do where nothing is random.
          content: [B, N, ...], canonical; most orders look at B alone.
          progress: float32 [], the share of the training that is done; None for the order that it ends with.
        """
        ...

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """The order of generation; its `steps` are known before tracing.

        Args:
          key: PRNG key; None will do where nothing is random.
          batch: B.
          steps: T, where the order leaves a choice; 0 takes its own.
          given: bool [N], canonical: slots whose contents are known beforehand (a prompt, the part of a picture that
            stays); None for none. They come first.

        Raises:
          ValueError: no such number of steps, or given slots that can't come first in this order.
        """
        ...

    def scheduled(self, schedule: tuple[tuple[int, ...], ...]) -> Ordering:
        """The ordering with so many slots kept by each step of each part; raises ValueError where it has no parts."""
        ...

    def around(self, order: Order, kept: np.ndarray) -> Order:
        """An order of `decoding` where some slots, bool [N], hold what they do whatever is drawn there."""
        ...

    def temperature(self, order: Order, step: Any) -> Any:
        """float32 [], what a step's temperature is multiplied by; None for nothing; others as of `revise`."""
        ...

    def revise(self, order: Order, step: Any, slots: Any, sample: Any, draws: Draws) -> Any:
        """Where steps propose more than they keep: how much each proposal is worth, float32 [B, n].

        The step keeps the slots of the greatest worth. The others are unknown again, and are drawn anew in later steps.

        Args:
          order: as it stands; its sizes are those of `decoding`.
          step: number of the step (int, or traced in a scan).
          slots: int [B, n]: all that are unknown; entries beyond these are passed over.
          sample: what the head drew for them, `Sample` of [B, n].
          draws: the step's, for [B, n].
        """
        ...


class Plain:
    """What most orders have in common: the same for all examples, all of whose slots are predicted, one step by one."""

    grid: Grid
    random: bool = False
    random_decoding: bool = False
    foretold: bool = False
    partial: bool = False
    thins: bool = False
    masked: bool = False
    by_level: bool = False
    proposes: Proposes = "step"

    @property
    def most_known(self) -> int:
        """Up to all slots."""
        return self.grid.size

    def scheduled(self, schedule: tuple[tuple[int, ...], ...]) -> Ordering:
        """There are no parts."""
        raise ValueError(
            "sampling.schedule: expected none, as this order has no steps inside levels, found one"
        )

    def around(self, order: Order, kept: np.ndarray) -> Order:
        """The order as it is."""
        return order

    def temperature(self, order: Order, step: Any) -> Any:
        """All steps have the sampling's own."""
        return None

    def revise(self, order: Order, step: Any, slots: Any, sample: Any, draws: Draws) -> Any:
        """A proposal is worth its score."""
        return sample.score
