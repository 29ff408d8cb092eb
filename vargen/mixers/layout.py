"""What a mixer must know of the rows that it is given."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """The rows of one pass, as an order and a feed lay them out.

    Attributes:
      steps: int [N] or [B, N]: the step of each row; NumPy where known before tracing.
      coords: int [N, A] or [B, N, A]: where each row's content lies: ([frame,] row, column); negative for rows
        that lie nowhere (a condition).
      start: in the cached form, the row of the cache at which these rows begin (int, or traced in a scan).
      key_steps: int [M] or [B, M]: the step of every row that can be seen, those of the cache in the cached form;
        None where it is `steps` itself.
      layer: which layer of its stack is at work (int, or traced under a scan over layers).
    """

    steps: Any
    coords: Any
    start: Any = None
    key_steps: Any = None
    layer: Any = 0

    @property
    def sequence(self):
        """int [N, 1]: the place of each row in the generation sequence."""
        return np.arange(self.steps.shape[-1])[:, None] + (0 if self.start is None else self.start)
