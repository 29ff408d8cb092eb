"""Orders of generation: which slots are predicted together, and in what sequence.

An order is data. Everything downstream (visibility in attention, positions, cache layout, the decode loop)
is derived from it. The axis's contract is `Ordering`.
"""

from vargen.orders.blocks import cells, chunks
from vargen.orders.confidence import Confidence, confidence
from vargen.orders.drawn import (
    Random,
    RandomSets,
    RandomToRaster,
    random,
    random_sets,
    random_slots,
    random_to_raster,
)
from vargen.orders.fixed import Fixed, frames, levels, raster
from vargen.orders.level_sets import LevelSets, level_sets
from vargen.orders.masked_levels import MaskedLevels, masked_levels
from vargen.orders.order import Order, Ordering
from vargen.orders.schedules import cosine_sizes
from vargen.orders.segments import SegmentOrder
from vargen.orders.subsets import SomeLevels, ThinnedLevels, some_levels, thinned_levels
from vargen.slots import Grid


def _raster(grid: Grid) -> Fixed:
    """One slot a step, row by row."""
    return Fixed(grid, raster(grid))


def _frames(grid: Grid) -> Fixed:
    """A frame a step."""
    return Fixed(grid, frames(grid))


def _levels(grid: Grid) -> Fixed:
    """Next-scale prediction (VAR, arXiv 2404.02905): a level a step, coarse to fine."""
    return Fixed(grid, levels(grid))


ORDERS = {
    "raster": _raster,
    "frames": _frames,
    "levels": _levels,
    "cells": cells,
    "chunks": chunks,
    "random": random,
    "random_to_raster": random_to_raster,
    "random_sets": random_sets,
    "confidence": confidence,
    "masked_levels": masked_levels,
    "level_sets": level_sets,
    "some_levels": some_levels,
    "thinned_levels": thinned_levels,
    "segments": SegmentOrder,
}

__all__ = [
    "ORDERS",
    "Confidence",
    "Fixed",
    "MaskedLevels",
    "LevelSets",
    "Order",
    "Ordering",
    "Random",
    "RandomSets",
    "RandomToRaster",
    "SegmentOrder",
    "SomeLevels",
    "ThinnedLevels",
    "cells",
    "chunks",
    "cosine_sizes",
    "frames",
    "levels",
    "random_slots",
    "raster",
]
