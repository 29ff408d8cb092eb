"""What a mixer must know of the rows that it is given: who sees whom, and where they lie."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vargen import content as contents
from vargen import static


@dataclasses.dataclass(frozen=True)
class View:
    """A visibility: a row sees the keys whose time is not later than its own.

    Attributes:
      times: int [N] or [B, N]: of each row as one that looks; -1 sees nothing.
      key_times: int [M] or [B, M]: of each row that may be seen, those of the cache first; `HIDDEN` for one that
        nobody sees.
      window: sees no more than so many times back (0: its own alone); None sees all.
    """

    times: Any
    key_times: Any
    window: int | None = None


HIDDEN = 2**30


@dataclasses.dataclass(frozen=True)
class Memory:
    """Keys and values for rows to look at instead of each other, the same for all blocks of a stage.

    Attributes:
      key, value: [B, M, G, D/H].
      times: int [M] or [B, M]: a row sees those whose time is not later than its own.
    """

    key: Any
    value: Any
    times: Any


@dataclasses.dataclass(frozen=True)
class Layout:
    """The rows of one pass, as an order and a feed lay them out.

    What is known before tracing is a NumPy array; `times` and `key_times` that are traced come non-decreasing, but for
    rows that are hidden.

    Attributes:
      times: int [N] or [B, N]: the time of each row: it sees the rows of its own and of earlier times.
      coords: int [N, A] or [B, N, A]: where each row's content lies: ([frame,] row, column); negative for rows
        that lie nowhere (a condition).
      start: in the cached form, the row of the cache at which these rows begin (int, or traced in a scan, then also
        int [B]: for each example its own, and rows beyond the cache's end are dropped; with one for all there is room).
      key_times: int [M] or [B, M]: the time of every row that can be seen, those of the cache in the cached form;
        None where it is `times` itself. A row is hidden by the time `HIDDEN`.
      keep: how many rows, the first ones, stay in the cache; the others are seen in this pass alone. None keeps all.
      views: further visibilities, in union with the first and disjoint from it (skip-causal: earlier clean blocks, and
        the own noisy one).
      memory: what rows look at instead of each other; None for each other.
      context: `Condition.memory` and `hidden`: what every block's cross-attention looks at, where there is one.
      segments: int [N] or [B, N]: of slots that a head is told of, whose they are, where there are several segments; of
        a step NumPy, all alike. None else.
      slots: int [N] or [B, N]: of slots that a head is told of, which they are; None else.
      layer: which layer of its stage is at work (int, or traced under a scan over layers).
      speculative: in the cached form, whether rows, the last ones, may be taken back (`mixers.rollback`); times and
        coords are then [B, N] and [B, N, A], start [B], and every row is of a time of its own.
      window: of the first visibility, as of `View`.
      branch: which of the feed's branches the rows go through (`Feed.branches`).
    """

    times: Any
    coords: Any
    start: Any = None
    key_times: Any = None
    keep: int | None = None
    views: tuple[View, ...] = ()
    memory: Memory | None = None
    context: tuple[Any, Any] | None = None
    segments: Any = None
    slots: Any = None
    layer: Any = 0
    speculative: bool = False
    window: int | None = None
    branch: int = 0

    @property
    def sequence(self) -> Any:
        """int [N, 1], or [B, N, 1] where examples begin at rows of their own: each row's place in the sequence."""
        start: Any = 0 if self.start is None else self.start
        start = start if static.known(start) else start[..., None, None]
        return np.arange(self.times.shape[-1])[:, None] + start

    def part(self, rows: Any) -> Layout:
        """Times and places of the rows int [n] or [B, n] alone."""
        if self.coords.ndim == 3:
            coords = contents.take(self.coords, rows)
        else:
            coords = static.module(rows).asarray(self.coords)[rows]
        return Layout(static.pick(self.times, rows), coords)

    # Questions that mixers ask of a whole pass, when a config is built.

    @property
    def hides(self) -> bool:
        """Whether rows don't simply see those of their own and earlier times: padding, unions, a memory, a window, rows
        that don't stay."""
        return not all(x is None for x in (self.key_times, self.keep, self.memory, self.window)) or bool(
            self.views
        )

    @property
    def forwards(self) -> bool:
        """Whether rows come in the sequence of their times, as they do where these are traced."""
        return not static.known(self.times) or bool(np.all(np.diff(self.times) >= 0))

    @property
    def same_for_all(self) -> bool:
        """Whether times are known before tracing, non-decreasing, the same for all examples, and hide nothing."""
        return static.known(self.times) and self.times.ndim == 1 and not self.hides and self.forwards

    @property
    def everyone(self) -> bool:
        """Whether all rows see one another."""
        return self.same_for_all and bool(np.all(self.times == self.times[0]))

    @property
    def one_by_one(self) -> bool:
        """Whether every row has a time of its own."""
        return self.same_for_all and bool(np.all(np.diff(self.times) > 0))
