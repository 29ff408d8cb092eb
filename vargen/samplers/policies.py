"""Policies around the step: one after another, or several looked at together and taken back."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from vargen.feeds.rows import Step
from vargen.orders import Order
from vargen.samplers import jacobi
from vargen.samplers.call import Call, Decoding
from vargen.samplers.step import advance

# Steps of a feed without a cache are gathered in so many scans, each padded to its longest step: more would
# waste less on padding and take longer to compile.
PIECES = 4
# With a cache a loop more, for steps of another size, is compiled where it saves so many rows of an example.
LOOP = 64
# Modulations of rows are made for so many steps at once: weights are read once for them, in one product.
AHEAD = 32


def scheduled(call: Call, decoding: Decoding) -> tuple[Decoding, Any]:
    """All steps, one after another: alone where each has arithmetic of its own, else in scans."""
    passes, noise_levels = 0, call.generator.head.noise_levels
    for steps in joined(call, groups(call.order, call.generator.feed, call.generator.ordering.proposes)):
        drawn, count = steps[0].start >= call.order.given, 1
        if len(steps) == 1:
            decoding = advance(call, decoding, steps[0], drawn=drawn)
        else:
            decoding, count = scanned(call, decoding, steps, drawn)
        passes += count * (len(noise_levels) if drawn and noise_levels is not None else 1)
    return decoding, passes


def speculative(call: Call, decoding: Decoding) -> tuple[Decoding, Any]:
    """First what has arithmetic of its own, then steps ahead that are drafted, and verified (`jacobi`)."""
    if decoding.score is not None:
        raise ValueError("sampling.policy: jacobi keeps no scores; expected scheduled")
    known = passes = 0
    for steps in groups(call.order, call.generator.feed):
        if len(steps) > 1:
            decoding, lookahead = jacobi.decode(call, decoding, known, passes)
            return decoding, lookahead.passes
        decoding = advance(call, decoding, steps[0], drawn=steps[0].start >= call.order.given)
        known, passes = steps[0].start + steps[0].size, passes + 1
    return decoding, passes


class Policy(NamedTuple):
    """What goes through the blocks together, and what of it stays.

    Attributes:
      run: (call, decoding) -> the decoding with all slots, and the passes that it took, int [] or [B].
      check: (generator, order), raises ValueError for those that it can't honour.
      keeps: whether it puts what is kept (`decode`) in the place of what it draws.
    """

    run: Callable[[Call, Decoding], tuple[Decoding, Any]]
    check: Callable[[Any, Order], None]
    keeps: bool = True


POLICIES = {
    "scheduled": Policy(scheduled, lambda generator, order: None),
    "jacobi": Policy(speculative, jacobi.check, keeps=False),
}


def alone(order: Order, feed, proposes: str = "step") -> tuple[list[Step], list[Step]]:
    """The passes for slots that are given, and every step after them by itself; `proposes` as of `Ordering`."""
    sizes, starts = order.sizes.tolist(), order.starts.tolist()
    first = starts.index(order.given) if order.given < sum(sizes) else len(sizes)
    before = [0, *sizes[:-1]]
    if first < len(sizes):
        before[first] = order.given
    ends = {"step": np.cumsum(sizes), "level": order.ends, "rest": np.full(len(sizes), sum(sizes))}[proposes]
    segment = np.zeros(sum(sizes), int) if order.segments is None else np.asarray(order.segments)
    steps = [
        Step(i, start, n, end - start, start, b, segment=int(segment[start]))
        for i, (start, n, end, b) in enumerate(zip(starts, sizes, ends.tolist(), before, strict=True))
    ]
    given, steps = feed.prefill(steps[:first]), steps[first:]
    if passes := given or steps:
        passes[0] = dataclasses.replace(passes[0], begins=True)
    return given, steps


def groups(order: Order, feed, proposes: str = "step") -> list[list[Step]]:
    """Steps in groups that one scan can run; `proposes` as of `Ordering`.

    First the passes for slots that are given. Then with a cache neighbours that the feed calls alike; a group of one
    runs with its place known before tracing, and touches no row that doesn't exist yet. Without a cache up to
    `PIECES` groups of each segment, padded to their longest step.
    """
    prefilled, steps = alone(order, feed, proposes)
    given = [[s] for s in prefilled]
    if feed.cached:
        return given + [
            list(group) for _, group in itertools.groupby(steps, lambda s: (s.segment, feed.alike(s)))
        ]
    pieces = []
    for alike in (list(group) for _, group in itertools.groupby(steps, lambda s: s.segment)):
        cuts = np.unique(np.linspace(0, len(alike), PIECES + 1).round().astype(int)).tolist()
        pieces += [alike[low:high] for low, high in itertools.pairwise(cuts)]
    return given + [
        [
            dataclasses.replace(s, size=max(s.size for s in piece), most_known=max(s.start for s in piece))
            for s in piece
        ]
        for piece in pieces
    ]


def joined(call: Call, found: list[list[Step]]) -> list[list[Step]]:
    """Groups, of which neighbours become one where that takes fewer loops for few more rows.

    Each step is padded to the most slots and the most contents among them. Contents that a pass had already come out as
    they were. It needs a feed that takes both, mixers that write rows again, and settings that don't ask for a step's
    size.
    """
    generator, n = call.generator, call.slots.shape[1]
    if (
        len(found) == 1
        or not generator.feed.joins
        or call.sampling.random_sides
        or not all(stage.block.mixer.keeps_rows for stage in generator.stages)
    ):
        return found
    best: list[tuple[int, list[list[Step]]]] = [(0, [])]
    for stop in range(1, len(found) + 1):
        ways = []
        for start in reversed(range(stop)):
            rows, before = best[start]
            steps = padded([step for group in found[start:stop] for step in group], call.order.given, n)
            if steps is None:
                break
            rows += LOOP + len(steps) * (steps[0].size + steps[0].before)
            ways.append((rows, [*before, steps]))
        best.append(min(ways, key=lambda way: way[0]))
    return best[-1][1]


def padded(steps: list[Step], given: int, n: int) -> list[Step] | None:
    """Steps, several as if all were of one size after steps of one size.

    None where that would reach beyond the n slots or before the first, and for several of which some are special.
    """
    if len(steps) == 1:
        return steps
    size, before = max(s.size for s in steps), max(s.before for s in steps)
    first, last = steps[0], steps[-1]
    special = any(s.begins for s in steps) or first.start < given or first.segment != last.segment
    if special or first.start < before or last.start + size > n:
        return None
    return [dataclasses.replace(s, size=size, before=before, most_known=last.start) for s in steps]


def scanned(call: Call, decoding: Decoding, steps: list[Step], drawn: bool) -> tuple[Decoding, Any]:
    """Steps that are alike, in one loop: to its end, or until every example has stopped; and how many they were."""
    generator, count = call.generator, cast(Any, len(steps))

    def body(decoding, at, call=call):
        return advance(call, decoding, dataclasses.replace(steps[0], begins=False, **at), drawn), None

    def some(decoding, at):
        """Steps whose rows' modulations are made before them, once."""
        first = at["start"][0]
        made = generator.modulations_ahead(
            call.params, call.condition, first, len(at["start"]) * steps[0].size
        )
        here = dataclasses.replace(call, modulations=made)
        return jax.lax.scan(functools.partial(body, call=here), decoding, at)[0], None

    if generator.tokenizer.slot.stop is not None:
        return _until_stopped(generator.tokenizer.slot, body, decoding, table(steps), count)
    if several := _together(call, steps):
        at = {k: x.reshape(-1, several, *x.shape[1:]) for k, x in table(steps).items()}
        return jax.lax.scan(some, decoding, at)[0], count
    return jax.lax.scan(body, decoding, table(steps))[0], count


def _together(call: Call, steps: list[Step]) -> int:
    """How many steps after one another have their rows' modulations made together: up to `AHEAD`, as these take memory.
    0 where rows aren't known beforehand, or no number of steps would be worth it."""
    seen = functools.partial(call.generator.modulations_ahead, call.params, call.condition, count=1)
    if jax.eval_shape(seen, 0) is None or any(
        b.start - a.start != a.size for a, b in itertools.pairwise(steps)
    ):
        return 0
    return next((n for n in range(min(AHEAD, len(steps)), AHEAD // 8, -1) if len(steps) % n == 0), 0)


def table(steps: list[Step]) -> dict[str, jax.Array]:
    """What differs among steps that are alike, for a scan: by name int [len(steps)]."""
    return {name: jnp.asarray([getattr(s, name) for s in steps]) for name in ("index", "start", "count")}


def _until_stopped(slot, body, decoding: Decoding, table, count: int) -> tuple[Decoding, jax.Array]:
    """`lax.scan` of `body` over `count` rows of a table, given up once every example has its stop code; and after how
    many rows."""

    def goes_on(carry):
        return (carry[0] < count) & ~jnp.all(slot.stopped(carry[1].content))

    def step(carry):
        i, decoding = carry
        return i + 1, body(decoding, {name: column[i] for name, column in table.items()})[0]

    rows, decoding = jax.lax.while_loop(goes_on, step, (jnp.int32(0), decoding))
    return decoding, rows
