"""The decode engine: one loop for every system, derived from the order and the feed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vargen import content as contents
from vargen.draws import Draws, keyed
from vargen.feeds.rows import Step
from vargen.heads.head import Sample, together
from vargen.orders import Order
from vargen.samplers import jacobi
from vargen.samplers.settings import Sampling

# Steps of a feed without a cache are gathered in so many scans, each padded to its longest step: more would
# waste less on padding and take longer to compile.
PIECES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """What stays the same through the decoding of one batch.

    Attributes:
      generator: the `Generator`.
      params, quantizer: its parameters, and the tokenizer's quantiser's.
      condition, modulations: of the labels; under guidance with the label, then without.
      order: the order of generation.
      slots: its slots, int32 [B, N].
      draws: the randomness of every slot [B, N], canonical; where the order revises, of each step by `Draws.of`.
      scales: float32 [T], guidance of each step; None for none.
      sampling: the settings.
      kept: None, or (content [B, N, *slot.shape], bool [N]): what stands in the place of what is drawn.
      other: what the rows without a condition see in the place of some slots: content [B, N, ...] and bool [N]; None
        where they see the same.
    """

    generator: Any
    params: Any
    quantizer: Any
    condition: Any
    modulations: Any
    order: Order
    slots: jax.Array
    draws: Draws
    scales: jax.Array | None
    sampling: Sampling
    kept: Any = None
    other: tuple[Any, Any] | None = None

    def seen(self, content):
        """Content [B, N, ...] as rows see it: of those without a condition, where it differs, behind those with one."""
        if self.other is None:
            return content
        without = contents.choose(self.other[1], self.other[0], content)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), content, without)

    def feed(self, method: str, *args):
        """A method of the feed."""
        return self.generator.feed.apply({"params": self.params["feed"]}, *args, method=method)

    def head(self, method: str, *args):
        """A method of the head."""
        return self.generator.head.apply(self.generator.of_head(self.params), *args, method=method)

    def step(self, decoding: Decoding, content, step: Step, layers=None, draw=None):
        """One pass, see `Generator.step`."""
        params, seen = (self.params, self.quantizer), (self.condition, self.modulations, self.order, step)
        return self.generator.step(
            *params, decoding.state, decoding.cache, self.seen(content), *seen, layers, draw
        )

    def at(self, decoding: Decoding, step: Step) -> Call:
        """The call as it stands at a step, where the order revises."""
        if decoding.slots is None:
            return self
        order = dataclasses.replace(self.order, slots=decoding.slots)
        draws = self.draws.of(step.index)
        return dataclasses.replace(self, order=order, slots=decoding.slots, draws=draws)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoding:
    """What a step changes.

    Attributes:
      content: [B, N, *slot.shape], canonical, or a dict of such; zeros where nothing is known yet.
      state: the feed's.
      cache: of the stages, or None.
      score: of `Sample`, [B, N, ...], canonical; None where nobody asks for it.
      slots: int32 [B, N], the order's as they stand, where it revises: those that are known, then the others, of which
        `content` and `score` are what the last step proposed. None where they stay.
    """

    content: jax.Array
    state: Any
    cache: Any
    score: Any = None
    slots: Any = None


class Decoded(NamedTuple):
    """What came of decoding.

    Attributes:
      content: [B, N, *slot.shape], canonical.
      order: in which it came.
      score: float32 [B, N]: log-probability of each slot's content as the head had it when it drew it, under guidance;
        None where it wasn't asked for.
      passes: int32 [B]: passes through the blocks until each example was done.
    """

    content: jax.Array
    order: Order
    score: jax.Array | None
    passes: jax.Array


def decode(
    generator,
    params,
    quantizer,
    labels,
    key,
    sampling: Sampling,
    given=None,
    order=None,
    draws=None,
    scored: bool = False,
    kept=None,
) -> Decoded:
    """Generates contents for labels.

    Every slot's randomness depends on the key, the example's place in the batch and the slot alone (with the policy
    "jacobi" also on the pass), so that the result doesn't change with how steps are grouped or examples sharded.

    Args:
      generator: a `Generator`.
      params: its parameters.
      quantizer: the tokenizer's quantiser parameters.
      labels: int32 [B], or whatever the conditioning's `parse` gives.
      key: PRNG key.
      sampling: `Sampling`.
      given: (content [B, N, *slot.shape], bool [N] NumPy): slots whose contents are known beforehand; None for what
        the labels tell of the sequence (`Generator.told`), mostly nothing.
      order: an `Order` in the place of the ordering's own.
      draws: `Draws` for [B, N] in the place of the key's.
      scored: whether the scores are wanted, which heads with an explicit likelihood have.
      kept: None, or (content [B, N, *slot.shape], bool [N] NumPy): slots that hold this content from their step on,
        whatever is drawn there; unlike given ones they needn't come first, and tell nothing to the steps before.
    """
    args = (generator, params, quantizer, labels, key, sampling, given, order, draws, scored, kept)
    call, start = begin(*args)
    check(generator, call.order, sampling)
    found, passes = POLICIES[sampling.policy].run(call, start)
    order = call.order
    if found.slots is not None:
        order = dataclasses.replace(order, slots=found.slots)
    content = generator.tokenizer.slot.padded(found.content)
    return Decoded(content, order, found.score, jnp.broadcast_to(passes, len(call.slots)))


def begin(
    generator,
    params,
    quantizer,
    labels,
    key,
    sampling: Sampling,
    given=None,
    order=None,
    draws=None,
    scored: bool = False,
    kept=None,
) -> tuple[Call, Decoding]:
    """What stays through a decoding, and what it changes before the first step; see `decode`."""
    batch, sequence, other = jax.tree.leaves(labels)[0].shape[0], generator.sequence, None
    given = generator.told(labels) if given is None else given
    key_order, key_slots = jax.random.split(key)
    if order is None:
        known = None if given is None else given[1]
        order = generator.ordering.decoding(key_order, batch, sampling.steps, known)
    if sampling.guided:
        without = generator.condition.without(labels)
        other = generator.told(without)
        if other is not None and (given is None or not given[1][other[1]].all()):
            other = None  # what is drawn is the same for both
        labels = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), labels, without)
    condition = generator.condition.apply({"params": params["condition"]}, labels)
    call = Call(
        generator,
        params,
        quantizer,
        condition,
        generator.modulations(params, condition),
        order,
        jnp.broadcast_to(jnp.asarray(order.slots), (batch, sequence.grid.size)),
        draws or keyed(key_slots, batch, sequence.grid.size),
        sampling.scales(order.sizes) if sampling.guided else None,
        sampling,
        kept,
        other,
    )
    content = _keeping(given, sequence.slot.zeros(batch, sequence.grid.size))
    start = Decoding(
        content,
        call.feed("begin", batch),
        generator.init_cache(len(condition.prefix), 0),
        _no_scores(call) if scored else None,
        call.slots if generator.ordering.proposes == "rest" else None,
    )
    return call, start


def check(generator, order: Order, sampling: Sampling) -> None:
    """Raises ValueError for a policy that the parts of a generator, and its order of generation, don't allow."""
    POLICIES[sampling.policy].check(generator, order)


def scheduled(call: Call, decoding: Decoding) -> tuple[Decoding, Any]:
    """All steps, one after another: alone where each has arithmetic of its own, else in scans."""
    passes, levels = 0, call.generator.head.levels
    for steps in groups(call.order, call.generator.feed, call.generator.ordering.proposes):
        drawn, count = steps[0].start >= call.order.given, 1
        if len(steps) == 1:
            decoding = advance(call, decoding, steps[0], drawn=drawn)
        else:
            decoding, count = scanned(call, decoding, steps, drawn)
        passes += count * (len(levels) if drawn and levels is not None else 1)
    return decoding, passes


def speculative(call: Call, decoding: Decoding) -> tuple[Decoding, Any]:
    """First what has arithmetic of its own, then windows of steps that are drafted, and verified (`jacobi`)."""
    if decoding.score is not None:
        raise ValueError("sampling.policy: jacobi keeps no scores; expected scheduled")
    known = passes = 0
    for steps in groups(call.order, call.generator.feed):
        if len(steps) > 1:
            cache = _lengthened(call, decoding.cache)
            layers, cache = _cut(call, cache)
            decoding = dataclasses.replace(decoding, cache=cache)
            decoding, window = jacobi.decode(call, decoding, layers, known, passes)
            return decoding, window.passes
        decoding = advance(call, decoding, steps[0], drawn=steps[0].start >= call.order.given)
        known, passes = steps[0].start + steps[0].size, passes + 1
    return decoding, passes


class Policy(NamedTuple):
    """What goes through the blocks together, and what of it stays.

    Attributes:
      run: (call, decoding) -> the decoding with all slots, and the passes that it took, int [] or [B].
      check: (generator, order), raises ValueError for those that it can't honour.
    """

    run: Callable[[Call, Decoding], tuple[Decoding, Any]]
    check: Callable[[Any, Order], None]


POLICIES = {
    "scheduled": Policy(scheduled, lambda generator, order: None),
    "jacobi": Policy(speculative, jacobi.check),
}


def scanned(call: Call, decoding: Decoding, steps: list[Step], drawn: bool) -> tuple[Decoding, Any]:
    """Steps that are alike, in one loop: to its end, or until every example has stopped; and how many they were."""
    generator, layers, cache = call.generator, None, decoding.cache
    count: Any = len(steps)
    if generator.feed.cached:
        layers, cache = _cut(call, _lengthened(call, cache))

    def body(decoding, at):
        return advance(call, decoding, dataclasses.replace(steps[0], begins=False, **at), layers, drawn), None

    decoding = dataclasses.replace(decoding, cache=cache)
    if generator.tokenizer.slot.stop is None:
        decoding = jax.lax.scan(body, decoding, table(steps))[0]
    else:
        decoding, count = _until_stopped(generator.tokenizer.slot, body, decoding, table(steps), count)
    if generator.feed.cached:
        decoding = dataclasses.replace(decoding, cache=_stacked(call, decoding.cache))
    return decoding, count


def table(steps: list[Step]) -> dict[str, jax.Array]:
    """What differs among steps that are alike, for a scan: by name int [len(steps)]."""
    return {name: jnp.asarray([getattr(s, name) for s in steps]) for name in ("index", "start", "count")}


def advance(call: Call, decoding: Decoding, step: Step, layers=None, drawn: bool = True) -> Decoding:
    """One step: the blocks, the head, and what it drew put in its place.

    Args:
      call, decoding: what stays, and what changes.
      step: the step, or one of several under `lax.scan`.
      layers: see `Generator.step`.
      drawn: whether contents are drawn; else they are known, and only remembered.
    """
    call = call.at(decoding, step)
    content, score, cache, sequence = decoding.content, decoding.score, decoding.cache, decoding.slots
    if not drawn:
        cache = call.step(decoding, content, step, layers)[2]
    else:
        at, n = jnp.asarray(step.at()), call.slots.shape[1]
        slots = call.slots[:, jnp.minimum(at, n - 1)]
        # Rows beyond the step's slots are dropped: their index lies outside.
        put = jnp.where(at < (step.start + step.count if sequence is None else n), slots, n)
        draws, guidance = call.draws.at(slots), None if call.scales is None else call.scales[step.index]
        if call.generator.head.levels is None:
            sample, cache = at_once(call, decoding, step, draws, guidance, layers)
        else:
            sample, cache = jointly(call, decoding, step, put, draws, guidance, layers)
        if (slot := call.generator.tokenizer.slot).stop is not None:  # so is what comes after a stop code
            put = jnp.where(slot.stopped(content)[:, None], n, put)
        if sequence is not None:
            sequence = _revised(call, step, slots, sample, draws)
        content = _keeping(call.kept, contents.put(content, put, sample.content))
        if score is not None and sample.score is not None:
            score = contents.put(score, put, sample.score)
    state = call.feed("absorb", decoding.state, content, step, call.quantizer)
    return Decoding(content, state, cache, score, sequence)


def at_once(call: Call, decoding: Decoding, step: Step, draws: Draws, guidance, layers=None):
    """A step in one pass, of which the head draws from the last hidden vectors, or a code after each stage.

    Args:
      call, decoding, step, layers: as of `advance`.
      draws, guidance: of the step.

    Returns:
      The `Sample`, and the cache.
    """
    samples: list[Sample] = []

    def draw(hidden, rows):
        """Draws from the hidden vectors; the rows, told what was drawn of their slots."""
        args = (hidden, draws, rows.layout, call.sampling.of_step(step.size), guidance, call.quantizer)
        samples.append(call.head("sample", *args))
        if rows.content is None:
            return rows
        told = rows.content.at[..., len(samples) - 1].set(samples[-1].content)
        return dataclasses.replace(rows, content=told)

    between = draw if call.generator.head.each_stage else None
    hidden, rows, cache = call.step(decoding, decoding.content, step, layers, between)
    draw(hidden, rows)
    return together(samples), cache


def _revised(call: Call, step: Step, slots, sample, draws) -> jax.Array:
    """The sequence int32 [B, N] after a step that proposed all that was unknown, int [B, size]: what it keeps first."""
    args = (call.order, step.index, slots, sample.content, sample.score, draws)
    at = jnp.broadcast_to(jnp.asarray(step.at()), slots.shape)
    worth = jnp.where(at < call.slots.shape[1], call.generator.ordering.revise(*args), -jnp.inf)
    best = jnp.argsort(-worth, axis=-1, stable=True)
    return contents.put(call.slots, at, jnp.take_along_axis(slots, best, axis=-1))


def jointly(call: Call, decoding: Decoding, step: Step, slots, draws: Draws, guidance, layers=None):
    """A step that the head drafts and refines over several passes, of which the first brings what the step before left.

    Args:
      call, decoding, step, layers: as of `advance`.
      slots: int [B, size]: of the step; N where there is none.
      draws, guidance: of the step.

    Returns:
      The `Sample`, and the cache, in which none of the drafts stays.
    """
    levels = jnp.asarray(call.generator.head.levels)

    def one(draft, cache, at, step, layers):
        content = contents.put(decoding.content, slots, draft.content)
        noised = contents.Noised(decoding.content, content, levels[at])
        hidden, _, cache = call.step(dataclasses.replace(decoding, cache=cache), noised, step, layers)
        return call.head("refine", hidden, draft, at, call.sampling, guidance), cache

    draft, cache = one(call.head("start", draws, call.sampling), decoding.cache, 0, step, layers)
    if len(levels) == 1:
        return draft, cache
    alone, whole = dataclasses.replace(step, before=0, begins=False), layers is None
    if whole:
        layers, cache = _cut(call, cache)
    (draft, cache), _ = jax.lax.scan(
        lambda carry, at: (one(*carry, at, alone, layers), None), (draft, cache), jnp.arange(1, len(levels))
    )
    return draft, _stacked(call, cache) if whole else cache


def groups(order: Order, feed, proposes: str = "step") -> list[list[Step]]:
    """Steps in groups that one scan can run; `proposes` as of `Ordering`.

    First the passes for slots that are given. Then with a cache neighbours that the feed calls alike; a group of one
    runs with its place known before tracing, and touches no row that doesn't exist yet. Without a cache up to
    `PIECES` groups padded to their longest step.
    """
    sizes, starts = order.sizes.tolist(), order.starts.tolist()
    first = starts.index(order.given) if order.given < sum(sizes) else len(sizes)
    before = [0, *sizes[:-1]]
    if first < len(sizes):
        before[first] = order.given
    rest = proposes == "rest"
    segment = np.zeros(sum(sizes), int) if order.segments is None else np.asarray(order.segments)
    steps = [
        Step(i, start, n, sum(sizes) - start if rest else n, start, b, segment=int(segment[start]))
        for i, (start, n, b) in enumerate(zip(starts, sizes, before, strict=True))
    ]
    given, steps = feed.prefill(steps[:first]), steps[first:]
    if passes := given or steps:
        passes[0] = dataclasses.replace(passes[0], begins=True)
    given = [[s] for s in given]
    if feed.cached:
        return given + [
            list(group) for _, group in itertools.groupby(steps, lambda s: (s.segment, feed.alike(s)))
        ]
    cuts = np.unique(np.linspace(0, len(steps), PIECES + 1).round().astype(int)).tolist()
    pieces = [steps[low:high] for low, high in itertools.pairwise(cuts)]
    return given + [
        [
            dataclasses.replace(s, size=max(s.size for s in piece), most_known=max(s.start for s in piece))
            for s in piece
        ]
        for piece in pieces
    ]


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


def _keeping(known, content):
    """Content [B, N, ...] with that of the slots that are known (content, bool [N]); None for none."""
    return content if known is None else contents.choose(known[1], known[0], content)


def _no_scores(call: Call) -> jax.Array:
    """Zeros for the scores of all slots, in whatever shape the head gives them."""
    batch, n = call.slots.shape
    each = (1,) if call.generator.head.each_stage else ()
    hidden = jnp.zeros((len(call.condition.prefix), n, *each, call.generator.width))
    guidance = None if call.scales is None else call.scales[0]

    def sample():
        if call.generator.head.levels is None:
            draws = call.draws.of(0) if call.generator.ordering.proposes == "rest" else call.draws
            return call.head("sample", hidden, draws, None, call.sampling, guidance, call.quantizer)
        draft = call.head("start", call.draws, call.sampling)
        return call.head("refine", hidden, draft, 0, call.sampling, guidance)

    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(sample).score)


def _cut(call: Call, cache):
    """Layers and caches cut out of their stack once, before a loop: inside it that would be a copy each time."""
    cut = {s.name: s.cut(call.params, call.modulations[s.name], cache[s.name]) for s in call.generator.stages}
    layers = {name: both[0] for name, both in cut.items()}
    return layers, cache | {name: both[1] for name, both in cut.items()}


def _stacked(call: Call, cache):
    """Caches that `_cut` has cut, in their stack again."""
    names = [s.name for s in call.generator.stages]
    return cache | {name: jax.tree.map(lambda *x: jnp.stack(x), *cache[name]) for name in names}


def _lengthened(call: Call, cache):
    """A cache padded to the shapes of one of full length."""
    generator, conditions = call.generator, len(call.condition.prefix)
    full = jax.eval_shape(lambda: generator.init_cache(conditions, generator.feed.length))
    return jax.tree.map(
        lambda x, y: jnp.pad(x, [(0, b - a) for a, b in zip(x.shape, y.shape, strict=True)]), cache, full
    )
