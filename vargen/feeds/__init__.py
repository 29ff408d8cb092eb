"""Feeds: how the known slots reach a prediction. The axis's contract is `Feed`."""

from vargen.feeds.feed import Feed
from vargen.feeds.mask import Mask
from vargen.feeds.refine import Refine
from vargen.feeds.rows import Rows, Step
from vargen.feeds.shift import Shift

FEEDS = {"mask": Mask, "refine": Refine, "shift": Shift}

__all__ = ["FEEDS", "Feed", "Mask", "Refine", "Rows", "Shift", "Step"]
