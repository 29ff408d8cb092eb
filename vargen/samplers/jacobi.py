"""Speculative Jacobi decoding (SJD, arXiv 2410.01699): looks ahead, verifies, takes back.

A pass feeds W rows, its lookahead: what is known last, then drafts of the slots behind it. It gives the law P_j of
every slot of these, as sequential sampling would have it were the drafts before it true. The first slot's is certain.
A draft d that was drawn from a law q stands, if all before it do, with probability min(1, P(d) / q(d)); the first that
doesn't is drawn again from max(P - q, 0), normalised, and ends the pass. So 1 to W slots are settled, in exactly the
law of one after another (and at temperature 0 with the same codes): a draft's randomness is used once. The slots behind
get fresh drafts from their P, and places that come into the lookahead a guess, whose law is certain of itself.

Where all drafts stand, the slot behind them is settled too, by its P: W = 1 is sequential sampling, with the same keys.
Every example goes at its own pace. Beside the blocks' caches a pass keeps float32 [B, W, K] of laws.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import content as contents
from vargen.feeds.rows import Step
from vargen.orders import Order

if TYPE_CHECKING:
    from vargen.generator import Generator
    from vargen.samplers.call import Call, Decoding

# Draws of a slot in a pass, beside its own that settles it: numbers 1 + 3 t, 2 + 3 t, 3 + 3 t in pass t; 0 at first.
DRAFT, TEST, GUESS, KINDS = 1, 2, 3, 3


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lookahead:
    """What a pass changes, beside the decoding, whose content holds the drafts.

    Attributes:
      known: int32 [B]: slots of the sequence that are settled.
      laws: float32 [B, W, K]: the probabilities that the drafts of the slots behind those were drawn from.
      passes: int32 [B]: of each example until its end.
      turn: int32: passes of this loop.
    """

    known: jax.Array
    laws: jax.Array
    passes: jax.Array
    turn: Any


def check(generator: Generator, order: Order) -> None:
    """Raises ValueError for parts that can't look ahead or take back."""
    name = "sampling.policy: jacobi needs"
    feed, head, largest = generator.feed, generator.head, int(order.sizes.max())
    if not feed.looks_ahead:
        raise ValueError(
            f"{name} a feed whose rows may hold drafts (shift), found {type(feed).__name__.lower()}"
        )
    if not head.enumerable:
        raise ValueError(f"{name} a head over one code a slot (categorical), found {head.called}")
    if largest > 1:
        raise ValueError(f"{name} an order of one slot a step, found up to {largest}")
    for stage, layout in zip(generator.stages, generator.layouts(), strict=True):
        try:
            stage.block.mixer.check(dataclasses.replace(layout, speculative=True))
        except ValueError as error:
            raise ValueError(f"{name} rows that can be taken back: {error}") from error


def verify(laws, drafts, drawn_from, testable, draws) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which drafts stand.

    Args:
      laws: float32 [B, W, K], probabilities P of the lookahead's slots.
      drafts: int32 [B, W].
      drawn_from: float32 [B, W, K], the drafts' q.
      testable: bool [B, W]: which of them were in the pass, from the first on.
      draws: `Draws` for [B, W].

    Returns:
      int32 [B]: how many stand, from the first on; and of the slot behind them float32 [B, K], max(P - q, 0), bool [B],
      whether that is what it is drawn from: else there is no draft, or rounding alone has let it fall.
    """
    p, q = (jnp.take_along_axis(x, drafts[..., None], axis=-1)[..., 0] for x in (laws, drawn_from))
    odds = jnp.stack([p, jnp.maximum(q - p, 0.0)], axis=-1)
    stands = testable & (draws.choose(jnp.log(odds)) == 0)
    count = jnp.sum(jnp.cumprod(stands, axis=1), axis=1)
    last = jnp.minimum(count, laws.shape[1] - 1)[:, None]
    p, q = (jnp.take_along_axis(x, last[..., None], axis=1)[:, 0] for x in (laws, drawn_from))
    rest = jnp.maximum(p - q, 0.0)
    fell = jnp.take_along_axis(testable, last, axis=1)[:, 0] & jnp.any(rest > 0, axis=-1)
    return count, rest, fell


def decode(call: Call, decoding: Decoding, known: int, passes: int) -> tuple[Decoding, Lookahead]:
    """All slots behind the first `known`, whose passes are behind."""
    batch, total = decoding.content.shape[:2]
    width = call.sampling.lookahead
    first = _ended(call, decoding.content, jnp.full(batch, known))
    content, laws = _guess(call, decoding.content, first, first, jnp.zeros((), jnp.int32))
    lookahead = Lookahead(first, laws, jnp.full(batch, passes), jnp.zeros((), jnp.int32))

    def body(carry):
        decoding, lookahead = carry
        at = lookahead.known[:, None] + np.arange(width)
        logits, cache = _look(call, decoding, lookahead.known, at)
        laws = jax.nn.softmax(logits)
        content, count = _settle(call, decoding.content, lookahead, at, logits, laws)
        going = lookahead.known < total
        kept = jnp.where(going, count, 0)
        content, laws = _slide(call, content, lookahead, kept, laws)
        cache = call.generator.rollback(cache, contents.repeat_to(kept, len(call.condition.prefix)))
        known = _ended(call, content, lookahead.known + kept)
        lookahead = Lookahead(known, laws, lookahead.passes + going, lookahead.turn + 1)
        return dataclasses.replace(decoding, content=content, cache=cache), lookahead

    start = dataclasses.replace(decoding, content=content), lookahead
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1].known < total), body, start)


def _ended(call: Call, content, known):
    """int32 [B]: how many slots are settled: all, where a stop code is among the first `known` [B]."""
    stop, total = call.generator.tokenizer.slot.stop, content.shape[1]
    if stop is None:
        return known
    settled = jnp.arange(total) < known[:, None]
    return jnp.where(jnp.any(settled & (content == stop), axis=1), total, known)


def _look(call: Call, decoding: Decoding, known, at):
    """One pass: logits float32 [B, W, K] of the lookahead's laws, and the cache with all its rows."""
    width = at.shape[1]
    step = Step(known, known, width, width, decoding.content.shape[1], speculative=True)
    hidden, _, cache = call.step(decoding, decoding.content, step)
    # One slot a step: a slot's place in the sequence is its step.
    scales = None if call.scales is None else jnp.take(call.scales, at, mode="clip")[..., None]
    return call.head("law", hidden, call.sampling.of_step(1), scales), cache


def _settle(call: Call, content, lookahead: Lookahead, at, logits, laws):
    """The content with what is settled and fresh drafts behind it, and how many are settled: int32 [B], from 1 on."""
    width, total = at.shape[1], content.shape[1]
    slots, place, turn = _slots(call, at), np.arange(width), KINDS * lookahead.turn
    drafts, draws = contents.take(content, slots), call.draws.at(slots)
    testable = (place < width - 1) & (at < total - 1)
    count, rest, fell = verify(laws, drafts, lookahead.laws, testable, draws.of(turn + TEST))
    count = count[:, None]
    last = jnp.take_along_axis(logits, count[..., None], axis=1)
    last = jnp.where(fell[:, None, None], jnp.log(rest)[:, None], last)
    settled = call.draws.at(jnp.take_along_axis(slots, count, axis=1)).choose(last)
    fresh = draws.of(turn + DRAFT).choose(logits)
    found = jnp.where(place < count, drafts, jnp.where(place == count, settled, fresh))
    return contents.put(content, jnp.where(at < total, slots, total), found), count[:, 0] + 1


def _slide(call: Call, content, lookahead: Lookahead, kept, laws):
    """Moved on by `kept` [B]: the content with guesses for the places that come in, and all drafts' laws."""
    width = laws.shape[1]
    content, guesses = _guess(
        call, content, lookahead.known + kept, lookahead.known + width, KINDS * lookahead.turn + GUESS
    )
    row = np.arange(width) + kept[:, None]
    moved = jnp.take_along_axis(laws, jnp.minimum(row, width - 1)[..., None], axis=1)
    return content, jnp.where((row < width)[..., None], moved, guesses)


def _slots(call: Call, at):
    """int [B, W]: the slots at places of the sequence, that of the last behind the end."""
    return jnp.take_along_axis(call.slots, jnp.minimum(at, call.slots.shape[1] - 1), axis=1)


def _guess(call: Call, content, known, end, number):
    """Guesses for the places of the lookahead from `end` [B] on.

    Args:
      call: the call.
      content: int32 [B, N]: what is known, and drafts.
      known: int32 [B]: where the lookahead begins.
      end: int32 [B].
      number: of the draws.

    Returns:
      The content with them, and their laws: float32 [B, W, K], of other places anything.
    """
    vocab, width, total = call.generator.tokenizer.slot.vocab, call.sampling.lookahead, content.shape[1]
    at = known[:, None] + np.arange(width)
    slots = _slots(call, at)
    # Whatever a guess is drawn from, its law is certain of it: about uniform will do.
    share = jax.scipy.special.ndtr(call.draws.at(slots).of(number).normal(()))
    guesses = jnp.minimum(share * vocab, vocab - 1).astype(jnp.int32)
    if call.sampling.guess == "left":
        guesses = _from_the_left(call, content, guesses, at, end[:, None])
    new = (at >= end[:, None]) & (at < total)
    return contents.put(content, jnp.where(new, slots, total), guesses), jax.nn.one_hot(guesses, vocab)


def _from_the_left(call: Call, content, guesses, at, end):
    """The code to the left in the row, of new places the code that those would take; in the first column the guess."""
    grid, slots = call.generator.tokenizer.grid, np.asarray(call.order.slots)
    place = np.empty(len(slots), int)
    place[slots] = np.arange(len(slots))
    # Neighbours in a row are neighbours in the canonical layout. One that comes later in the sequence is none.
    left = np.where(grid.coords[slots, -1] > 0, place[slots - 1], -1)
    left = np.where(left < np.arange(len(slots)), left, -1)
    last = len(slots) - 1

    def hop(_, source):
        there = jnp.asarray(left)[source]
        return jnp.where((source >= end) & (there >= 0), there, source)

    source = jax.lax.fori_loop(0, at.shape[1], hop, jnp.minimum(at, last))
    inside = jnp.clip(source - at[:, :1], 0, at.shape[1] - 1)
    found = contents.take(content, _slots(call, source))
    return jnp.where(source < end, found, jnp.take_along_axis(guesses, inside, axis=1))
