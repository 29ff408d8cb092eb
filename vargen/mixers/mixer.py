"""The mixer axis: how rows exchange information inside a block."""

from __future__ import annotations

from typing import Any, Protocol

import jax

from vargen.layers import Linen
from vargen.layout import Layout


class Mixer(Linen, Protocol):
    """A Linen module with a parallel form (no cache) and a cached form, equal for every layout that `check` takes.

    Attributes:
      keeps_rows: whether the cache keeps every row apart, at its place in the sequence, so that later ones may be
        written over; else it is a state that each row changes.
      reads_ahead: whether, but in training, it takes `layers.Ahead` for x, and `onto`, to which it then adds.
    """

    @property
    def keeps_rows(self) -> bool: ...

    @property
    def reads_ahead(self) -> bool: ...

    def check(self, layout: Layout) -> None:
        """Raises ValueError for options that don't fit, and for a layout of a whole pass that it can't honour; of one
        that is `speculative`, for rows that it can't take back."""
        ...

    def init_cache(self, batch: int, length: int) -> Any:
        """Whatever it must remember, before the first row and for `length` of them: a pytree of arrays [B, ...]."""
        ...

    def __call__(self, x, layout: Layout, cache: Any = None, train: bool = False) -> tuple[jax.Array, Any]:
        """Mixes rows.

        Args:
          x: [B, N, D].
          layout: who sees whom and, in the cached form, where the rows begin.
          cache: None (parallel form) or what all rows before `layout.start` left.
          train: whether dropout is on (needs the rng "dropout").

        Returns:
          [B, N, D], and the cache with these rows in it, the first `layout.keep` of them (None in the parallel form).
        """
        ...
