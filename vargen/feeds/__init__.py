"""Feeds: how the known slots reach a prediction. The axis's contract is `Feed`."""

from vargen.feeds.branched import Branched
from vargen.feeds.feed import Feed
from vargen.feeds.instruct import Instruct
from vargen.feeds.mask import Mask
from vargen.feeds.noisy import Noisy
from vargen.feeds.pivots import Pivots
from vargen.feeds.query import Query
from vargen.feeds.refine import Refine
from vargen.feeds.rows import Rows, Step
from vargen.feeds.shift import Shift
from vargen.feeds.staged import Staged

FEEDS = {
    "branched": Branched,
    "instruct": Instruct,
    "mask": Mask,
    "noisy": Noisy,
    "pivots": Pivots,
    "query": Query,
    "refine": Refine,
    "shift": Shift,
    "staged": Staged,
}

__all__ = [
    "FEEDS",
    "Branched",
    "Feed",
    "Instruct",
    "Mask",
    "Noisy",
    "Pivots",
    "Query",
    "Refine",
    "Rows",
    "Shift",
    "Staged",
    "Step",
]
