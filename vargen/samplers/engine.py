"""The decode engine: one loop for every system, derived from the order and the feed."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vargen import content as contents
from vargen.draws import Draws, keyed
from vargen.feeds.rows import Step
from vargen.orders import Order
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
      draws: the randomness of every slot [B, N], canonical.
      scales: float32 [T], guidance of each step; None for none.
      sampling: the settings.
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoding:
    """What a step changes.

    Attributes:
      content: [B, N, *slot.shape], canonical, or a dict of such; zeros where nothing is known yet.
      state: the feed's.
      cache: of the stages, or None.
      score: of `Sample`, [B, N, ...], canonical; None where nobody asks for it.
    """

    content: jax.Array
    state: Any
    cache: Any
    score: Any = None


class Decoded(NamedTuple):
    """What came of decoding.

    Attributes:
      content: [B, N, *slot.shape], canonical.
      order: in which it came.
      score: float32 [B, N]: log-probability of each slot's content as the head had it when it drew it, under guidance;
        None where it wasn't asked for.
    """

    content: jax.Array
    order: Order
    score: jax.Array | None


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
) -> Decoded:
    """Generates contents for labels.

    Every slot's randomness depends on the key, the example's place in the batch and the slot alone, so that
    the result doesn't change with how steps are grouped or examples sharded.

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
    """
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
        other,
    )
    content = sequence.slot.zeros(batch, sequence.grid.size)
    if given is not None:
        content = contents.choose(given[1], given[0], content)
    start = Decoding(
        content,
        call.feed("begin", batch),
        generator.init_cache(len(condition.prefix), 0),
        _no_scores(call) if scored else None,
    )
    found = scheduled(call, start)
    return Decoded(found.content, order, found.score)


def scheduled(call: Call, decoding: Decoding) -> Decoding:
    """All steps, one after another: alone where each has arithmetic of its own, else in scans."""
    for steps in groups(call.order, call.generator.feed):
        drawn = steps[0].start >= call.order.given
        if len(steps) == 1:
            decoding = advance(call, decoding, steps[0], drawn=drawn)
        else:
            decoding = scanned(call, decoding, steps, drawn)
    return decoding


def scanned(call: Call, decoding: Decoding, steps: list[Step], drawn: bool) -> Decoding:
    """Steps that are alike, in one `lax.scan`."""
    generator, layers, cache = call.generator, None, decoding.cache
    if generator.feed.cached:
        conditions = len(call.condition.prefix)
        length = generator.feed.length
        cache = _lengthen(cache, jax.eval_shape(lambda: generator.init_cache(conditions, length)))
        # Layers are cut out of their stack once, before the loop: inside it that would be a copy each step.
        cut = {s.name: s.cut(call.params, call.modulations[s.name], cache[s.name]) for s in generator.stages}
        layers = {name: both[0] for name, both in cut.items()}
        cache = cache | {name: both[1] for name, both in cut.items()}
    table = {name: jnp.asarray([getattr(s, name) for s in steps]) for name in ("index", "start", "count")}

    def body(decoding, at):
        return advance(call, decoding, dataclasses.replace(steps[0], begins=False, **at), layers, drawn), None

    decoding = jax.lax.scan(body, dataclasses.replace(decoding, cache=cache), table)[0]
    if generator.feed.cached:
        stacked = {
            s.name: jax.tree.map(lambda *x: jnp.stack(x), *decoding.cache[s.name]) for s in generator.stages
        }
        decoding = dataclasses.replace(decoding, cache=decoding.cache | stacked)
    return decoding


def advance(call: Call, decoding: Decoding, step: Step, layers=None, drawn: bool = True) -> Decoding:
    """One step: the blocks, the head, and what it drew put in its place.

    Args:
      call, decoding: what stays, and what changes.
      step: the step, or one of several under `lax.scan`.
      layers: see `Generator.step`.
      drawn: whether contents are drawn; else they are known, and only remembered.
    """
    generator, content, score = call.generator, decoding.content, decoding.score
    hidden, rows, cache = generator.step(
        call.params,
        call.quantizer,
        decoding.state,
        decoding.cache,
        call.seen(content),
        call.condition,
        call.modulations,
        call.order,
        step,
        layers,
    )
    if drawn:
        at, n = jnp.asarray(step.at()), call.slots.shape[1]
        slots = call.slots[:, jnp.minimum(at, n - 1)]
        guidance = None if call.scales is None else call.scales[step.index]
        sample = generator.head.apply(
            {"params": call.params["head"]},
            hidden,
            call.draws.at(slots),
            rows.layout,
            call.sampling,
            guidance,
            method="sample",
        )
        # Rows beyond the step's slots are dropped: their index lies outside.
        slots = jnp.where(at < step.start + step.count, slots, n)
        content = contents.put(content, slots, sample.content)
        score = None if score is None else contents.put(score, slots, sample.score)
    state = call.feed("absorb", decoding.state, content, step, call.quantizer)
    return Decoding(content, state, cache, score)


def groups(order: Order, feed) -> list[list[Step]]:
    """Steps in groups that one scan can run.

    First the passes for slots that are given. Then with a cache neighbours that the feed calls alike; a group of one
    runs with its place known before tracing, and touches no row that doesn't exist yet. Without a cache up to
    `PIECES` groups padded to their longest step.
    """
    sizes, starts = order.sizes.tolist(), order.starts.tolist()
    first = starts.index(order.given) if order.given < sum(sizes) else len(sizes)
    before = [0, *sizes[:-1]]
    if first < len(sizes):
        before[first] = order.given
    segment = np.zeros(sum(sizes), int) if order.segments is None else np.asarray(order.segments)
    steps = [
        Step(i, start, n, n, start, b, segment=int(segment[start]))
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


def _no_scores(call: Call) -> jax.Array:
    """Zeros for the scores of all slots, in whatever shape the head gives them."""
    batch, n = call.slots.shape
    hidden = jnp.zeros((len(call.condition.prefix), n, call.generator.width))
    guidance = None if call.scales is None else call.scales[0]
    args = (hidden, call.draws, None, call.sampling, guidance)
    head = functools.partial(call.generator.head.apply, {"params": call.params["head"]}, method="sample")
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(head, *args).score)


def _lengthen(cache, full):
    """A cache padded to the shapes of one of full length."""
    return jax.tree.map(
        lambda x, y: jnp.pad(x, [(0, b - a) for a, b in zip(x.shape, y.shape, strict=True)]), cache, full
    )
