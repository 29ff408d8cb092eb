"""Orders over the segments of a sequence: whole segments, one after another."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.limits import Between
from vargen.orders.order import Order, Plain
from vargen.slots import Grid


@dataclasses.dataclass(frozen=True)
class SegmentOrder(Plain):
    """One slot a step, segment after segment, in one of several sequences of them (words first, or the picture).

    Attributes:
      grid: the slots of all segments.
      sizes: how many each segment has.
      sequences: of the segments' numbers, each of them once. In training every example has one of these at random, each
        as often; in decoding it is the first that begins with what is given.
    """

    grid: Grid
    sizes: tuple[int, ...]
    sequences: Annotated[tuple[tuple[int, ...], ...], Between(0, 255)] = ((0, 1), (1, 0))

    foretold = True

    def __post_init__(self):
        expected = list(range(len(self.sizes)))
        for sequence in self.sequences:
            if sorted(sequence) != expected:
                raise ValueError(
                    f"config field order.sequences: expected each of the segments {expected} once, "
                    f"found {tuple(sequence)}"
                )
        if not self.sequences:
            raise ValueError("config field order.sequences: expected a sequence of segments, found none")

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether examples have different orders in training."""
        return len(self.sequences) > 1

    @functools.cached_property
    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Slots, and the segment of each: int [S, N] of every sequence."""
        starts = np.cumsum((0, *self.sizes))
        slots = [np.concatenate([np.arange(starts[k], starts[k + 1]) for k in s]) for s in self.sequences]
        segments = [np.repeat(s, [self.sizes[k] for k in s]) for s in self.sequences]
        return np.stack(slots).astype(np.int32), np.stack(segments).astype(np.int32)

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """A sequence for each example: slots and segments [B, N], or [N] where there is one sequence."""
        slots, segments = self.tables
        steps = np.arange(self.grid.size)
        if not self.random:
            return Order(slots[0], steps, segments=segments[0])
        batch = jax.tree.leaves(content)[0].shape[0]
        drawn = jax.random.randint(key, (batch,), 0, len(slots))
        return Order(jnp.asarray(slots)[drawn], steps, segments=jnp.asarray(segments)[drawn])

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """The first sequence that begins with the given slots; `steps` must be 0 or the number of slots."""
        if steps not in (0, self.grid.size):
            raise ValueError(f"sampling.steps: this order has {self.grid.size} steps, found {steps}")
        first = 0 if given is None else int(given.sum())
        for slots, segments in zip(*self.tables, strict=True):
            if given is None or given[slots[:first]].all():
                return Order(slots, np.arange(self.grid.size), first, segments=segments)
        raise ValueError("given slots: expected the first ones of a sequence of segments, found others")
