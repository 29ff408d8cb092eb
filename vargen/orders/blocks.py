"""Orders of blocks: neighbouring slots in one step (ACDiT, arXiv 2412.07720; xAR, arXiv 2502.20388)."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from vargen.limits import SIZE, divisors
from vargen.orders.fixed import Fixed
from vargen.orders.order import Order
from vargen.slots import Grid


def cells(grid: Grid, count: Annotated[tuple[int, ...], SIZE]) -> Fixed:
    """The part "cells": a cell a step; cells, and the slots of each, in raster order.

    Args:
      grid: the slots, of one level.
      count: cells along each side: ([frames,] rows, columns).

    Raises:
      ValueError: several levels, or sides that can't be cut so.
    """
    if len(grid.levels) > 1:
        raise ValueError("order cells: expected a tokenizer of one level, found several")
    sides = (*(() if grid.frames == 1 else (grid.frames,)), *grid.levels[0])
    if len(count) != len(sides) or any(side % n for side, n in zip(sides, count, strict=True)):
        expected, found = ("x".join(map(str, x)) for x in (sides, count))
        common = math.gcd(*sides)
        near = divisors(common, max(count)) if len(count) == len(sides) else f"{(common,) * len(sides)}"
        raise ValueError(
            f"config field order.count: expected divisors of the sides {expected}, found {found}; for instance {near}"
        )
    size = [side // n for side, n in zip(sides, count, strict=True)]
    cell = np.ravel_multi_index(tuple((grid.places // size).T), tuple(count))
    slots = np.argsort(cell, kind="stable")
    return Fixed(grid, Order(slots, cell[slots]))


def chunks(grid: Grid, size: Annotated[int, SIZE]) -> Fixed:
    """The part "chunks": the next slots in raster order a step.

    Args:
      grid: the slots.
      size: how many.

    Raises:
      ValueError: chunks that don't fill the grid.
    """
    if grid.size % size:
        raise ValueError(
            f"config field order.size: expected a divisor of the {grid.size} slots, found {size}; for instance "
            f"{divisors(grid.size, size)}"
        )
    return Fixed(grid, Order(np.arange(grid.size), np.arange(grid.size) // size))
