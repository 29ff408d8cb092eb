"""Orders that are the same for every example."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vargen.orders.order import Order, Plain
from vargen.slots import Grid


def raster(grid: Grid) -> Order:
    """One slot per step, in the canonical layout (for a plain grid: row by row)."""
    return Order(np.arange(grid.size), np.arange(grid.size))


def levels(grid: Grid) -> Order:
    """Next-scale prediction (VAR, arXiv 2404.02905): all slots of a level in one step, coarse to fine."""
    return Order(np.arange(grid.size), grid.coords[:, 0])


def frames(grid: Grid) -> Order:
    """All slots of a frame in one step, frame after frame (single-level grids)."""
    return Order(np.arange(grid.size), grid.coords[:, 1])


@dataclasses.dataclass(frozen=True)
class Fixed(Plain):
    """An order that is the same for every example, in training and decoding.

    Attributes:
      grid: the slots.
      order: the order itself.
    """

    grid: Grid
    order: Order

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """The order."""
        return self.order

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """The order; `steps` must be 0 or its own number of steps, and given slots whole steps from the first on."""
        found = len(self.order.sizes)
        if steps not in (0, found):
            raise ValueError(f"sampling.steps: this order has {found} steps, found {steps}")
        if given is None:
            return self.order
        first = int(given.sum())
        if not given[self.order.slots[:first]].all() or first not in (*self.order.starts, self.grid.size):
            raise ValueError(
                "given slots: expected whole steps of the order, from the first one on, found others"
            )
        return dataclasses.replace(self.order, given=first)
