"""A generator: condition, feed, stages of blocks, head, put together over a tokenizer's slots."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import content as contents
from vargen import sharding, static
from vargen.conditioning import Condition, Conditioning
from vargen.feeds import Feed, Step
from vargen.heads import Head, JointHead
from vargen.layout import Layout
from vargen.mixers.block import SharedModulation
from vargen.orders import Order, Ordering
from vargen.segments import PICTURE, Sequence
from vargen.stage import Stage
from vargen.tokenizers.tokenizer import Tokenizer


class Modulations(NamedTuple):
    """What modulates blocks.

    Attributes:
      blocks: by the stage, see `Stage.modulations`; None where nothing does, or only rows themselves know.
      first: the place in the sequence of what the first of M rows predicts, where they are of so many; else None.
    """

    blocks: dict[str, Any]
    first: Any = None

    @property
    def ahead(self) -> bool:
        """Whether they are of rows that bring conditions of their own."""
        return self.first is not None


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """Static configuration of a generator, with pure functions over its parameters.

    Parameters are a dict: `condition`, `feed`, `head`, for each stage its blocks' parameters and `<stage>_norm`, for
    each further branch of the feed `<its last stage>_head`, and `modulation` where it is shared.

    Attributes:
      tokenizer: of the picture.
      sequence: the slots that it generates: the picture's, and those of other segments.
      ordering, condition, feed, head: the parts.
      stages: those that the feed names.
      modulation: the shared modulation, or None.
    """

    tokenizer: Tokenizer
    sequence: Sequence
    ordering: Ordering
    condition: Conditioning
    feed: Feed
    stages: tuple[Stage, ...]
    head: Head | JointHead
    modulation: SharedModulation | None = None

    @property
    def width(self) -> int:
        """D."""
        return self.stages[0].block.width

    def init_boxed(self, key: jax.Array):
        """Parameters, each boxed with its logical axis names."""
        keys = dict(zip(("condition", "feed", "head", "modulation"), jax.random.split(key, 4), strict=True))
        params = {"condition": self.condition.init(keys["condition"], self.condition.example())["params"]}
        vector = jnp.zeros((1, 1, self.width))
        if self.modulation is not None:
            params["modulation"] = self.modulation.init(keys["modulation"], vector)["params"]
        params["feed"] = self.feed.init(keys["feed"], self, method=_touch_feed)["params"]
        for branch in range(len(self.feed.branches)):
            # As `init` makes them, which takes no other collection.
            name = self.name_of_head(branch)
            other, rngs = nn.meta.unbox(self.of_head(params | {name: {}}, branch)), {"params": keys["head"]}
            params[name] = self.head.apply(other, vector, rngs=rngs, mutable=["params"])[1]["params"]
        for i, stage in enumerate(self.stages):
            params |= stage.init_boxed(jax.random.fold_in(key, i))
        return params

    @functools.cached_property
    def boxes(self) -> Any:
        """Shapes of the parameters in their boxes, see `init_boxed`."""
        return jax.eval_shape(self.init_boxed, jax.eval_shape(lambda: jax.random.key(0)))

    def init_feed(self, key: jax.Array):
        """The feed's parameters alone, a plain pytree."""
        return nn.meta.unbox(self.feed.init(key, self, method=_touch_feed)["params"])

    def init(self, key: jax.Array):
        """Parameters as a plain pytree of float32 arrays."""
        return nn.meta.unbox(self.init_boxed(key))

    def name_of_head(self, branch: int = 0) -> str:
        """What the parameters of the head behind a branch are called by."""
        return f"{self.stages[self.feed.branches[branch][-1]].name}_head" if branch else "head"

    def of_head(self, params, branch: int = 0) -> dict[str, Any]:
        """What the head is applied with: its parameters, and those of other parts that it shares (`Head.shares`).

        Args:
          params: of the generator.
          branch: behind which it stands.

        Raises:
          ValueError: the other parts have none of that name.
        """
        shared = {}
        for name in self.head.shares:
            found = params
            for key in name.split("/"):
                if key not in found:
                    raise ValueError(
                        f"head {self.head.called}: shares {name}, which a feed must have, such as mask over codes"
                    )
                found = found[key]
            shared[name] = found
        return {"params": params[self.name_of_head(branch)]} | ({"shared": shared} if shared else {})

    def layouts(self) -> list[Layout]:
        """How the rows of a training pass are laid out in each stage of each round; traced where examples differ."""
        found: list[Layout] = []
        # The key is made inside, so that no backend is started.
        jax.eval_shape(lambda: self.feed.init(jax.random.key(0), self, found, method=_touch_feed))
        return found

    # Training.

    def loss(self, params, quantizer, content, labels, key, train: bool = True, progress=None, soft=None):
        """The training loss.

        Args:
          params: parameters.
          quantizer: the tokenizer's quantiser parameters.
          content: of the picture, [B, n, *slot.shape].
          labels: int32 [B], or whatever the conditioning's `parse` gives.
          key: PRNG key.
          train: label dropout, dropout and stochastic depth on.
          progress: float32 [], the share of the training that is done, which orders may depend on; None for the
            order that they end with.
          soft: None, or float32 [B, n, *slot.shape, K]: the probabilities that codes are to have, of which `content` is
            a draw.

        Returns:
          A float32 scalar, and the head's metrics.
        """
        key_order, key_labels, key_rows, key_head = jax.random.split(key, 4)
        if train:
            labels = self.condition.drop(labels, key_labels)
        content, learnt = self.joined(content, labels)
        order = self.ordering.training(key_order, content, progress)
        target = content
        if self.head.noise_levels is not None:
            content = self.noised(params, content, order, key_head)
            target = content.target
        hidden, rows = self.hidden(params, quantizer, content, labels, order, key_rows if train else None)
        target = contents.take(target, rows.slots)
        weight = self._weight(content, rows, learnt)
        if self.feed.emphasis is not None:
            emphasis = jnp.broadcast_to(jnp.asarray(self.feed.emphasis)[rows.slots], hidden.shape[:2])
            weight = emphasis if weight is None else weight * emphasis
        return self.head.apply(
            self.of_head(params, rows.layout.branch),
            hidden,
            target,
            self.layout_of(order, rows.slots),
            weight,
            train,
            quantizer,
            None if soft is None else contents.take(self._padded(soft), rows.slots),
            method="loss",
            rngs={"head": key_head},
        )

    def layout_of(self, order: Order, slots) -> Layout:
        """What a head is told of slots int [n] or [B, n] that a whole pass predicts: their steps are their times."""

        def of(values):
            return static.pick(static.spread(values, order.slots, self.sequence.grid.size), slots)

        segments = None if order.segments is None else of(order.segments)
        return Layout(of(order.steps), self._places(slots), segments=segments, slots=slots)

    def layout_of_step(self, order: Order, step: Step) -> Layout:
        """The same of the slots of one step, which are of one time; those that only fill it up come later."""
        # Without a cache, and by feeds that can, steps are padded to the longest of several.
        padded = (self.feed.joins or not self.feed.cached) and self.ordering.proposes == "step"
        at = step.at()
        slots = static.take(order.slots, static.module(at).minimum(at, self.sequence.grid.size - 1))
        rows = np.arange(step.size)
        segments = None if order.segments is None else np.full(step.size, step.segment)
        times = 1 * (rows >= step.count) if padded else 0 * rows
        return Layout(times, self._places(slots), segments=segments, slots=slots)

    def _places(self, slots):
        """[n, A] or [B, n, A]: where slots lie, as the feed has it."""
        return static.module(slots).asarray(self.feed.lie)[slots]

    def noised(self, params, content, order, key) -> contents.Noised:
        """What a head that draws a step over several passes is trained on: each step's contents with noise of their own
        level; the order is the same for all examples.
        """
        steps = static.spread(order.steps, order.slots, self.sequence.grid.size)
        found: Any = self.head.apply(
            {"params": params["head"]}, content, steps, method="noised", rngs={"head": key}
        )
        return found

    def joined(self, content, labels):
        """The content of all segments from the picture's [B, n, ...] and the labels, and what of it is to be learnt.

        Returns:
          Content of N slots, and bool or float32 [B, N], or None where all of it is.
        """
        segment, slot = self.condition.segment, self.tokenizer.slot
        if segment is None and slot.stop is None:
            return content, None
        if segment is None:  # an example without a stop code was cut off, and ends nowhere
            return content, jnp.broadcast_to(slot.stopped(content)[:, None], content.shape[:2])
        joined = self.sequence.join({segment.name: self.condition.content(labels), PICTURE: content})
        learnt = jnp.ones((len(content), self.sequence.grid.size))
        return joined, learnt.at[:, self.sequence.slots(segment.name)].set(self.condition.learnt(labels))

    def _padded(self, x):
        """[B, n, ...] of the picture's slots -> [B, N, ...] of all, zeros for those of other segments."""
        own = self.sequence.slots(PICTURE)
        around = own.start, self.sequence.grid.size - own.stop
        return jnp.pad(x, [(0, 0), around, *[(0, 0)] * (x.ndim - 2)])

    def given_by(self, labels):
        """What labels say of the sequence: content [B, N, ...] and bool [N], where; None where they say nothing."""
        segment = self.condition.segment
        if segment is None:
            return None
        joined = self.sequence.join({segment.name: self.condition.content(labels)})
        return joined, self.sequence.known(segment.name)

    def kept(self, content, labels, known):
        """What is known beforehand, as of `given_by`, by slots of the picture: its content [B, n, ...], bool [n]."""
        return self.joined(content, labels)[0], self.known(known)

    def known(self, slots):
        """bool [N]: slots of the picture, bool [n], and those of which labels tell."""
        segment = self.condition.segment
        if segment is None:
            return slots
        known = self.sequence.known(segment.name)
        known[self.sequence.slots(PICTURE)] = slots
        return known

    def picture(self, content, order: Order):
        """The picture's content, and the order in which its own slots came, of what was decoded."""
        return self.sequence.part(content, PICTURE), self.own(order)

    def own(self, order: Order) -> Order:
        """The order of decoding as that of the picture's slots alone."""
        if len(self.sequence.segments) == 1:
            return order
        own, slots = self.sequence.slots(PICTURE), np.asarray(order.slots)
        of = (slots >= own.start) & (slots < own.stop)
        steps = np.asarray(order.steps)[of]
        return Order(slots[of] - own.start, steps - steps[0])

    def log_likelihood(self, params, quantizer, content, labels) -> jax.Array:
        """float32 [B], nats: log p(content [B, N, ...] | labels [B]) in the order of generation.

        Raises:
          ValueError: the head has no explicit likelihood, or generation is in random order.
        """
        if not self.head.explicit or self.ordering.random_decoding:
            raise ValueError("log_likelihood: needs a head with an explicit likelihood and a fixed order")
        order = self.ordering.decoding(None, len(content))
        hidden, rows = self.hidden(params, quantizer, content, labels, order)
        target = contents.take(content, rows.slots)
        nats: Any = self.head.apply(self.of_head(params), hidden, target, quantizer, method="log_prob")
        weight = self._weight(content, rows)
        return jnp.sum(nats if weight is None else nats * weight, axis=1)

    def _weight(self, content, rows, learnt=None):
        """float32 [B, n]: how much each prediction counts; None for ones. That of padding never does, nor what is not
        to be `learnt` [B, N]."""
        weight, alone = rows.weight, len(self.sequence.segments) == 1
        for counts in (self.tokenizer.slot.exists(content) if alone else None, learnt):
            if counts is not None:
                own = contents.take(counts, rows.slots).astype(jnp.float32)
                weight = own if weight is None else weight * own
        return weight

    def hidden(self, params, quantizer, content, labels, order, key=None):
        """The whole pass in parallel: hidden vectors [B, N, D] of the feed's rows, and those rows.

        With a key, training's dropout is on. Contents are `Noised` where the feed drafts.
        """
        condition = sharding.by_batch(self.condition.apply({"params": params["condition"]}, labels))
        rngs = None if key is None else {"dropout": jax.random.fold_in(key, len(self.stages))}
        rows = self.feed.apply(
            {"params": params["feed"]},
            content,
            condition,
            order,
            quantizer,
            key is not None,
            method="inputs",
            rngs=rngs,
        )
        rows = dataclasses.replace(rows, condition=sharding.by_batch(rows.condition))
        modulations = self.modulations(params, condition)
        return sharding.by_batch(self.through(params, rows, condition, modulations, key=key)[0]), rows

    # Decoding.

    def modulations(self, params, condition) -> Modulations:
        """Every block's modulations by the condition's vector.

        None where blocks have none, or where rows bring conditions of their own (`Rows.condition`).
        """
        if self.stages[0].block.adaptive == "none" or self.feed.modulates_rows:
            return Modulations({stage.name: None for stage in self.stages})
        shared = self._shared(params, condition.vector[:, None])
        return Modulations({stage.name: stage.modulations(params, shared) for stage in self.stages})

    def modulations_ahead(self, params, condition, first, count: int) -> Modulations | None:
        """Those of the rows that predict `count` slots from the place `first` in the sequence on, where rows bring
        conditions of their own and these are known beforehand (`Feed.conditions`); else None."""
        if not self.feed.modulates_rows:
            return None
        at = first + jnp.arange(count)
        known = self.feed.apply({"params": params["feed"]}, condition, at, method="conditions")
        if known is None:
            return None
        shared = self._shared(params, known)
        return Modulations({stage.name: stage.modulations(params, shared) for stage in self.stages}, first)

    def _shared(self, params, condition):
        """[B, M, D], or through the map that all blocks share [B, M, 6, D]."""
        if self.modulation is None:
            return condition
        return self.modulation.apply({"params": params["modulation"]}, condition)

    def init_cache(self, params, batch: int):
        """Empty caches of every stage; None for feeds that remember nothing."""
        if not self.feed.cached:
            return None
        length = self.feed.length
        own = {stage.name: stage.init_cache(params, batch, length) for stage in self.stages}
        return own | {"feed": self.feed.init_cache(batch, length)}

    def step(
        self,
        params,
        quantizer,
        state,
        cache,
        content,
        condition,
        modulations,
        order,
        step,
        draw=None,
    ):
        """One pass of one step of decoding.

        Args:
          params: as of `weights.ready`.
          quantizer: as for `loss`.
          state: the feed's state.
          cache: of `init_cache`.
          content: the contents so far, [B, N, *slot.shape], canonical; `Noised` where the feed drafts.
          condition: `Condition` with R conditions per example (with and without label under guidance).
          modulations: what `modulations` gave for it.
          order: the order; slots may differ per example.
          step: the step.
          draw: as for `through`.

        Returns:
          Hidden vectors [R B, size, D] of the step's slots (see `Head.each_stage`; of all rows for `Head.around`),
          their rows, and the cache.
        """
        args = (state, content, condition, order, step, quantizer)
        rows = self.feed.apply({"params": params["feed"]}, *args, method="step_inputs")
        hidden, cache = self.through(params, rows, condition, modulations, cache, draw=draw)
        if not self.feed.cached and not self.head.around:
            slots = jnp.take(order.slots, jnp.minimum(step.at(), order.slots.shape[-1] - 1), axis=-1)
            hidden = self.rows_of(hidden, rows, slots)
        return hidden, rows, cache

    def rows_of(self, hidden, rows, slots):
        """Of hidden vectors [R B, n, D] of a feed without a cache those of slots int [B, m]; anything for others."""
        at = jnp.clip(slots - rows.slots[0], 0, hidden.shape[1] - 1)
        return contents.take(hidden, contents.repeat_to(at, len(hidden)))

    def rollback(self, cache, kept):
        """The cache that a speculative step gave, of a feed that loops, with the first `kept` int [R B] rows alone."""
        return cache | {stage.name: stage.rollback(cache[stage.name], kept) for stage in self.stages}

    def through(self, params, rows, condition, modulations, cache=None, key=None, draw=None):
        """Rows through all stages of their branch to hidden vectors, and the cache; in as many rounds as the rows say
        (`Rows.rounds`), whose hidden vectors come one after another.

        Args:
          params, condition, modulations, cache: as for `step`.
          rows: of the first stage.
          key: PRNG key of dropout, or None.
          draw: (hidden vectors so far [B, n, s, D], rows) -> rows whose `content` has one more code; called after each
            stage but the last, for heads that read them all; None where contents are known.
        """
        own, owner, seen = None, rows.owner, []
        after = {"feed": {}} if cache is None else dict(cache)
        vector = None if condition.vector is None else condition.vector[:, None]
        if rows.condition is not None:
            vector = rows.condition
            own = None if modulations.ahead else self._shared(params, rows.condition)
        hidden, count = rows.x, len(self.stages)
        branch = self.feed.branches[rows.layout.branch]
        passes = [round_ * count + k for round_ in rows.rounds for k in branch]
        for i in passes:
            stage = self.stages[i % count]
            if i > passes[0]:
                rows = rows if draw is None else draw(jnp.stack(seen, axis=2), rows)
                args = (i, hidden, rows, None if cache is None else after["feed"])
                rows, after["feed"] = self.feed.apply({"params": params["feed"]}, *args, method="enter")
            if condition.memory is not None:
                layout = dataclasses.replace(rows.layout, context=(condition.memory, condition.hidden))
                rows = dataclasses.replace(rows, layout=layout)
            stage_cache = None if cache is None else cache[stage.name]
            stage_key = None if key is None else jax.random.fold_in(key, i)
            modulation = modulations.blocks[stage.name]
            if stage.rounds is not None:
                modulation = stage.of_round(modulation, i // count)
            row = rows.row - modulations.first if modulations.ahead else None
            args = (rows.layout, vector, modulation, own, stage_cache, stage_key, owner, row)
            hidden, stage_cache = stage(params, rows.x, *args)
            after[stage.name] = stage_cache
            if self.head.each_stage or i % count == branch[-1]:
                seen.append(self.feed.apply({"params": params["feed"]}, hidden, rows, method="outputs"))
        hidden = jnp.stack(seen, axis=2) if self.head.each_stage else jnp.concatenate(seen, axis=1)
        return hidden, None if cache is None else after


def _touch_feed(feed, generator, layouts: list[Layout] | None = None):
    """Runs every parameter of a feed once, for its initialisation; the layouts of its stages' rows are appended."""
    tokenizer, sequence, width = generator.tokenizer, generator.sequence, generator.width
    content = sequence.slot.zeros(1, sequence.grid.size)
    length = generator.condition.length
    padding = jnp.zeros((1, length), bool) if generator.condition.pads else None
    condition = Condition(jnp.zeros((1, length, width)), jnp.zeros((1, width)), padding)
    # As training begins: orders that end with the raster one are random then.
    order = generator.ordering.training(jax.random.key(0), content, jnp.float32(0))
    abstract = nn.meta.unbox(jax.eval_shape(tokenizer.init_quantizer, jax.random.key(0)))
    quantizer = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract)
    if feed.drafts:
        content = contents.Noised(content, content, jnp.zeros(content.shape[:2]))
    rows = feed.inputs(content, condition, order, quantizer)
    layouts = [] if layouts is None else layouts
    layouts.append(rows.layout)
    for i in range(1, feed.rounds * len(feed.stages)):
        rows, _ = feed.enter(i, rows.x, rows)
        layouts.append(rows.layout)
    return feed.outputs(rows.x, rows)
