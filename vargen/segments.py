"""A sequence of several segments (words and a picture, a picture and its depth map), each with its own slots."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.slots import Grid, Slot

PICTURE = "picture"  # the segment that the tokenizer makes


@dataclasses.dataclass(frozen=True)
class Segment:
    """Slots of one kind that belong together.

    Attributes:
      name: what its content, its embedding and its head are called by.
      slot: what each slot holds.
      grid: the slots, and where they lie.
    """

    name: str
    slot: Slot
    grid: Grid


@dataclasses.dataclass(frozen=True)
class Slots:
    """What the slots of several segments hold: content is a dict of arrays [B, N, *slot.shape] by the segments' names.

    N counts the slots of all segments; of each array those of its own segment mean something.

    Attributes:
      segments: in the canonical layout, one after another.
    """

    segments: tuple[Segment, ...]

    stop = None  # as of `Slot`: every slot holds something
    coded = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """How many slots each segment has: what no slot that is alone has as its shape."""
        return tuple(segment.grid.size for segment in self.segments)

    @property
    def vocab(self) -> int:
        """K of all codes together."""
        return sum(segment.slot.vocab for segment in self.segments)

    def zeros(self, batch: int, slots: int) -> dict[str, jax.Array]:
        """Content of zeros: [B, N, *shape] each."""
        return {segment.name: segment.slot.zeros(batch, slots) for segment in self.segments}

    def __str__(self) -> str:
        return " and ".join(f"{segment.name} ({segment.slot})" for segment in self.segments)


@dataclasses.dataclass(frozen=True)
class Sequence:
    """All that a generator writes: its segments, one after another in the canonical layout.

    Attributes:
      segments: one for a plain generator.
    """

    segments: tuple[Segment, ...]

    @functools.cached_property
    def grid(self) -> Grid:
        """The slots of all segments; levels are theirs."""
        if len(self.segments) == 1:
            return self.segments[0].grid
        if frames := [s.name for s in self.segments if s.grid.frames > 1]:
            raise ValueError(f"segments: expected slots without frames beside others, found {frames[0]}")
        return Grid(tuple(level for s in self.segments for level in s.grid.levels))

    @functools.cached_property
    def slot(self) -> Slot | Slots:
        """What they hold.

        Raises:
          ValueError: slots of several segments, of which some end with a stop code, or hold a code and numbers.
        """
        if len(self.segments) == 1:
            return self.segments[0].slot
        if stopping := [s.name for s in self.segments if s.slot.stop is not None]:
            raise ValueError(
                f"segments: expected slots without a stop code beside others, found {stopping[0]}"
            )
        if mixed := [s.name for s in self.segments if s.slot.coded]:
            raise ValueError(
                f"segments: expected slots of codes or of numbers beside others, found both in those of {mixed[0]}"
            )
        return Slots(self.segments)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Slots of each segment."""
        return tuple(segment.grid.size for segment in self.segments)

    def slots(self, name: str) -> slice:
        """Those of a segment, canonical."""
        at = [segment.name for segment in self.segments].index(name)
        start = sum(self.sizes[:at])
        return slice(start, start + self.sizes[at])

    def known(self, *names: str) -> np.ndarray:
        """bool [N], canonical: the slots of some segments."""
        found = np.zeros(self.grid.size, bool)
        for name in names:
            found[self.slots(name)] = True
        return found

    def join(self, parts: Mapping[str, jax.Array]) -> Any:
        """Content of all slots from segments' own, [B, n, ...] each; zeros for those that aren't there."""
        if len(self.segments) == 1:
            return parts[self.segments[0].name]
        content = self.slot.zeros(len(next(iter(parts.values()))), self.grid.size)
        return content | {
            name: content[name].at[:, self.slots(name)].set(part.astype(content[name].dtype))
            for name, part in parts.items()
        }

    def part(self, content: Any, name: str) -> jax.Array:
        """A segment's own content [B, n, ...] of that of all slots."""
        return content if len(self.segments) == 1 else content[name][:, self.slots(name)]


def rows_of(segments: Any, number: int, count: int) -> Any:
    """int [count] or [B, count]: where the rows of a segment are, in sequence.

    Args:
      segments: int [n] or [B, n]: the segment of each row; NumPy where known before tracing.
      number: of the segment.
      count: how many rows it has, for every example.
    """
    if static.known(segments) and segments.ndim == 1:
        return np.flatnonzero(segments == number)
    return jnp.argsort(segments != number, axis=-1, stable=True)[..., :count]
