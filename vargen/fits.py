"""Whether the parts of a config fit each other, as they are built: each misfit one line that names the field."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from vargen.errors import UserError


@contextlib.contextmanager
def beside(config, *axes: str, instead: str = "") -> Iterator[None]:
    """Names the parts that a part was held against where its own check, which doesn't know their names, refuses them.

    What is said of a field stands as it is.

    Args:
      config: whose parts they are.
      *axes: of the parts.
      instead: what takes these parts, in the place of the one that doesn't.
    """
    try:
        yield
    except ValueError as error:
        line = str(error)
        if isinstance(error, UserError) or line.startswith("config field"):
            raise
        there = ", ".join(f"{axis} {config[axis].name}" for axis in axes)
        line = f"{line} ({there})" if "found" in line else f"{line}; found the {there}"
        raise UserError(f"{line}; {instead} takes these" if instead else line) from error


def another_head(error: ValueError, sequence) -> UserError:
    """An error; one about a head also names a head that takes the sequence's slots and asks nothing of the feed."""
    slot = sequence.slot
    plain = "hybrid" if slot.coded else "diffusion"
    if slot.vocab:
        plain = "depth" if slot.shape else "categorical"
    if len(sequence.segments) > 1:
        plain = "segments"
    line = str(error)
    return UserError(f"{line}; the head {plain} takes these" if line.startswith("head ") else line)


def check_stages(config, feed, head) -> None:
    """Raises UserError where only one of feed and head has something between stages."""
    if feed.told and not head.each_stage:
        raise UserError(
            f"feed {config.feed.name}: tells rows a code after each stage, expected the head staged, found "
            f"{config.head.name}"
        )
    if head.each_stage and not feed.told:
        raise UserError(
            f"head {config.head.name}: draws a code after each stage, expected the feed staged, found "
            f"{config.feed.name}"
        )


def check_condition(config, condition, feed, adaptive: str) -> None:
    """Raises UserError for a conditioning whose rows, vector or slots the feed or `adaptive` blocks can't take."""
    name = config.conditioning.name
    if condition.length > 1 and not feed.takes_prefix:
        raise UserError(
            f"conditioning {name}: makes {condition.length} rows, which needs the feed shift, found {config.feed.name}"
        )
    if not condition.pooled and (
        adaptive in ("adaln", "shared") or feed.modulates_rows or not feed.takes_prefix
    ):
        raise UserError(
            f"conditioning {name}: has no vector, expected model.adaptive none, the feed shift, no step_condition"
        )
    if condition.segment is not None and not feed.takes_segments:
        raise UserError(
            f"conditioning {name}: makes slots of the sequence, which needs the feed shift, found {config.feed.name}"
        )
    if feed.modulates_rows and adaptive not in ("adaln", "shared"):
        what = f"{config.feed.name}: step_condition" if config.feed.name == "shift" else config.feed.name
        raise UserError(
            f"feed {what} modulates blocks, expected model.adaptive adaln or shared, found {adaptive}"
        )


def check_prompt(config, sequence, condition, ordering) -> None:
    """Slots that nobody looks at, as a prompt's padding is none, come first."""
    if condition.segment is None or not condition.pads:
        return
    first = None if ordering.random else ordering.decoding(None, 1).segments[0]
    if first is None or sequence.segments[first].name != condition.segment.name:
        raise UserError(
            f"conditioning {config.conditioning.name}: comes before the picture, expected order.sequences ((0, 1),), "
            f"found {tuple(config.order.get('sequences', ((0, 1), (1, 0))))}"
        )


def check_order(config, sequence, ordering, feed) -> None:
    """Raises UserError for an order that trains on less than the feed wants, or is of other segments."""
    if ordering.partial and not feed.takes_partial:
        raise UserError(
            f"order {config.order.name}: trains on some of the slots alone, which needs the feed refine, found "
            f"{config.feed.name}"
        )
    with beside(config, "order"):
        feed.check(ordering)
    several, segmented = len(sequence.segments) > 1, False
    if not ordering.random_decoding:
        segmented = ordering.decoding(None, 1).segments is not None
    if several != segmented:
        wanted = "segments" if several else "an order of one segment, such as raster"
        raise UserError(
            f"config field order.name: expected {wanted}, as the sequence has {len(sequence.segments)}, found "
            f"{config.order.name}"
        )


def check_drafts(config, feed, head) -> None:
    """Raises UserError where only one of feed and head goes over several passes."""
    if feed.drafts and head.noise_levels is None:
        raise UserError(
            f"feed {config.feed.name}: shows what a head drafts over several passes, expected the head epsilon, "
            f"velocity or bernoulli_diffusion, found {config.head.name}"
        )
    if not feed.drafts and head.noise_levels is not None:
        raise UserError(
            f"head {config.head.name}: drafts over several passes, expected the feed noisy, found {config.feed.name}"
        )


def check_rounds(config, ordering, feed, head, adaptive: str) -> None:
    """Raises UserError for parts of other numbers of rounds."""
    if ordering.by_level and feed.rounds == 1:
        raise UserError(
            f"order {config.order.name}: goes level by level, expected the feed pivots, found {config.feed.name}"
        )
    if head.rounds not in (1, feed.rounds):
        raise UserError(
            f"head {config.head.name}: has parts for {head.rounds} rounds, expected a feed of as many, such as pivots, "
            f"found {config.feed.name}"
        )
    if head.around and feed.cached:
        raise UserError(
            f"head {config.head.name}: looks at all that is known, expected a feed without a cache, such as mask, "
            f"found {config.feed.name}"
        )
    if head.around and head.rounds == 1 and (levels := len(ordering.grid.levels)) > 1:
        raise UserError(
            f"head {config.head.name}: draws slots of one level, expected a tokenizer of one, or the head rounds, "
            f"found {levels} levels in the feed {config.feed.name}"
        )
    if adaptive == "rounds" and feed.rounds == 1:
        raise UserError(
            f"config field model.adaptive: rounds needs a feed of several, such as pivots, found {config.feed.name}"
        )


def check_redraws(config, ordering, feed, head) -> None:
    """Raises UserError for an order whose steps propose more than they keep, where feed or head can't draw it again."""
    if ordering.proposes != "step" and (feed.redraws != ordering.proposes or not head.enumerable):
        needed = "mask" if ordering.proposes == "rest" else "branched (masked=True)"
        raise UserError(
            f"order {config.order.name}: needs the feed {needed} and a head of codes, such as categorical, found "
            f"{config.feed.name}, {config.head.name}"
        )


def check_stop(config, slot, ordering) -> None:
    """Where examples end with a stop code, what comes after it must be padding."""
    if slot.stop is None:
        return
    order = None if ordering.random or ordering.random_decoding else ordering.decoding(None, 1)
    one_by_one = np.arange(ordering.grid.size)
    if order is None or not all(np.array_equal(x, one_by_one) for x in (order.slots, order.steps)):
        raise UserError(
            f"config field order: expected raster, as the slots of the tokenizer {config.tokenizer.name} end with a "
            f"stop code, found {config.order.name}"
        )
