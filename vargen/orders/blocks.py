"""Orders of blocks: neighbouring slots in one step (ACDiT, arXiv 2412.07720; xAR, arXiv 2502.20388)."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from vargen.limits import SIZE
from vargen.orders.fixed import Fixed
from vargen.orders.order import Order
from vargen.slots import Grid


def cells(grid: Grid, size: Annotated[tuple[int, ...], SIZE]) -> Fixed:
    """The part "cells": a cell a step; cells, and the slots of each, in raster order.

    Args:
      grid: the slots, of one level.
      size: of a cell: ([frames,] rows, columns).

    Raises:
      ValueError: several levels, or cells that don't fill the grid.
    """
    sides = (*(() if grid.frames == 1 else (grid.frames,)), *grid.levels[0])
    fits = len(grid.levels) == 1 and len(size) == len(sides) and not any(n % s for n, s in zip(sides, size))
    if not fits:
        words = "several levels" if len(grid.levels) > 1 else f"cells of {_times(size)}"
        raise ValueError(f"config field order.size: expected cells that fill {_times(sides)}, found {words}")
    slots = np.arange(grid.size)
    places = grid.places
    cell = np.ravel_multi_index(
        tuple((places // np.asarray(size)).T), [n // s for n, s in zip(sides, size, strict=True)]
    )
    order = np.argsort(cell, kind="stable")
    return Fixed(grid, Order(slots[order], cell[order]))


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
            f"config field order.size: expected a divisor of the {grid.size} slots, found {size}"
        )
    return Fixed(grid, Order(np.arange(grid.size), np.arange(grid.size) // size))


def _times(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
