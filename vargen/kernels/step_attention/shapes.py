"""Shapes that tests and benchmarks share."""

from __future__ import annotations

import dataclasses

import numpy as np

VAR_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
VAR_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)


@dataclasses.dataclass(frozen=True)
class Shape:
    """One use of attention: sizes, and the steps of its rows.

    Attributes:
      batch, heads, groups, dim: B, H, G, D.
      steps: int [N], or [B, N] to be traced.
    """

    batch: int
    heads: int
    groups: int
    dim: int
    steps: np.ndarray

    @property
    def slots(self) -> int:
        """N."""
        return self.steps.shape[-1]

    @property
    def visible(self) -> int:
        """Pairs of query and key that see each other, per example and head."""
        steps = np.sort(np.atleast_2d(self.steps), axis=-1)
        return int(sum(np.searchsorted(s, s, side="right").sum() for s in steps) // len(steps))

    @property
    def shapes(self):
        """Of q, k and v."""
        rows = self.batch, self.slots
        return ((*rows, self.heads, self.dim),) + ((*rows, self.groups, self.dim),) * 2


def levels(sides) -> np.ndarray:
    """Steps of a VAR of square levels with the given sides."""
    return np.repeat(np.arange(len(sides)), np.square(sides))


def random_orders(batch: int, slots: int) -> np.ndarray:
    """Steps [B, N] of an order of its own for every example, rows in canonical sequence."""
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(slots) for _ in range(batch)])


SHAPES = {
    "var_256": Shape(8, 16, 16, 64, levels(VAR_256)),
    "var_512": Shape(2, 16, 16, 64, levels(VAR_512)),
    "llamagen_256": Shape(8, 12, 12, 64, np.arange(256)),
    "llamagen_1024": Shape(4, 12, 12, 64, np.arange(1024)),
    "mar": Shape(8, 12, 12, 64, np.zeros(320, int)),
    "random_1024": Shape(4, 16, 16, 64, random_orders(4, 1024)),
    "causal_4096": Shape(1, 16, 16, 64, np.arange(4096)),
}
