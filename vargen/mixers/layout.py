"""What a mixer must know of the rows that it is given."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Layout:
    """The rows of one pass, as an order and a feed lay them out.

    Attributes:
      steps: int [N] or [B, N]: the step of each row; NumPy where known before tracing.
      coords: int [N, A] or [B, N, A]: where each row's content lies, for rotary positions; negative for rows
        that lie nowhere (a condition). None where positions enter otherwise.
      start: in the cached form, the row of the cache at which these rows begin (int, or traced in a scan).
      cache_steps: in the cached form, int [M]: the step of every row of the cache.
    """

    steps: Any
    coords: Any = None
    start: Any = None
    cache_steps: Any = None
