"""What every feed must show: one that is registered without a row in `FED` fails here.

A feed lays out a whole pass and every step of decoding; who sees whom is drawn by hand for four slots.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from parameters import noisy
from sight import drawn, seen
from systems import SYSTEMS, labels_for, some_slow

from vargen import models
from vargen.content import Noised
from vargen.feeds import FEEDS
from vargen.orders import Order
from vargen.samplers.policies import groups

# Name -> (feed, the system that drives it, who sees whom in each stage, as `drawn` reads it). Rows of the
# condition come first; four slots, or a level of one and one of four.
EVERYONE = "##### ##### ##### ##### #####"
FED = dict(
    shift=("shift", "llamagen", ["#... ##.. ###. ####"]),
    refine=("refine", "var", ["#.... ##### ##### ##### #####"]),
    # A level sees itself alone, in the trunk and in both ends; test_branched.py has steps inside a level.
    branched=("branched", "hmar", ["#.... .#### .#### .#### .####"] * 2),
    branched_masked=("branched", "hmar_masked", ["#.... .#### .#### .#### .####"] * 3),
    # A row of the condition and three slots that are known; then all of them.
    mask=("mask", "mar", ["#### #### #### ####", EVERYONE]),
    mask_at_once=("mask", "maskgit", [EVERYONE]),
    # A row of the condition and the pivot; then all; then the condition, the pivot, three slots of four; then all.
    pivots=("pivots", "himar", ["## ##", "###### " * 6, "##### " * 5, "###### " * 6]),
    # Instruction and content of each slot, without the last content.
    instruct=(
        "instruct",
        "randar",
        ["#....... ##...... ###..... ####.... #####... ######.. #######. ########"],
    ),
    # Three contents; then four questions, each of which sees what came before.
    query=("query", "arpg", ["#... ##.. ###. ####", "#... ##.. ###. ####"]),
    # As shift, in each of two stages.
    staged=("staged", "dnd", ["#... ##.. ###. ####", "#... ##.. ###. ####"]),
    # Three contents, four drafts.
    noisy=("noisy", "acdit", ["#...... ##..... ###.... ...#... #...#.. ##...#. ###...#"]),
)
SLOW = ("branched_masked", "mask_at_once")  # of feeds that others have too


@functools.cache
def make(name):
    feed, system, _ = FED[name]
    c = SYSTEMS[system]()
    assert c.feed.name == feed
    c.tokenizer.encoder.patch = 8
    if feed in ("refine", "branched", "pivots"):
        c.tokenizer.levels = (1, 2)
    if feed in ("mask", "pivots"):
        c.feed.buffer = 1
    if c.order.name == "random_sets":
        c.order.mask_ratio_min = 0.001
    if "steps" in c.order:
        c.order.steps = (1, 4) if feed == "pivots" else 4
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    quantizer = noisy(lambda key: nn.meta.unbox(tokenizer.init_quantizer(key)))
    return generator, noisy(generator.init, scale=0.3), quantizer


def contents(generator, seed):
    slot = generator.tokenizer.slot
    shape = (2, generator.tokenizer.grid.size, *slot.shape)
    return jnp.asarray(9 * np.random.default_rng(seed).random(shape), slot.dtype)


def drafted(generator, content, slots=None):
    """The same with drafts of all slots, or of a step's alone, where the feed shows them."""
    if not generator.feed.drafts:
        return content
    draft, level = contents(generator, 7), jnp.full(content.shape[:2], 300.0)
    if slots is None:
        return Noised(content, draft, level)
    return Noised(content, content.at[:, slots].set(draft[:, slots]), level[0, 0])


def layouts(generator, params, quantizer, content, order):
    """The rows of each stage in a whole pass."""
    condition = generator.condition.apply({"params": params["condition"]}, labels_for(generator, 2))
    apply = lambda method, *args: generator.feed.apply({"params": params["feed"]}, *args, method=method)  # noqa: E731
    rows = [apply("inputs", drafted(generator, content), condition, order, quantizer)]
    for i in range(1, generator.feed.rounds * len(generator.stages)):
        rows.append(apply("enter", i, rows[-1].x, rows[-1])[0])
    return rows, condition, apply


def sequence(generator, steps=None):
    """The canonical order, a slot (or a level) a step."""
    ordering = generator.ordering
    if ordering.proposes == "level" or not ordering.random and not ordering.random_decoding:
        return ordering.decoding(None, 2)
    n = generator.tokenizer.grid.size
    levels = generator.tokenizer.grid.coords[:, 0] if ordering.by_level else None
    return Order(np.arange(n), np.arange(n) if steps is None else steps, segments=levels)


def test_no_feed_is_left_out():
    assert {feed for feed, _, _ in FED.values()} == FEEDS.keys()


@pytest.mark.parametrize("name", some_slow(FED, SLOW))
def test_who_sees_whom(name):
    generator, params, quantizer = make(name)
    content, n = contents(generator, 1), generator.tokenizer.grid.size
    order = sequence(generator)
    if not generator.feed.cached:  # three are known, of two examples, and a pivot
        order = Order(np.tile(np.arange(n), (2, 1)), np.tile(np.arange(n) == n - 1, (2, 1)).astype(int))
        generator = dataclasses.replace(generator, feed=generator.feed.clone(most_known=3))

    @jax.jit
    def sights():
        return [seen(rows.layout) for rows in layouts(generator, params, quantizer, content, order)[0]]

    for found, drawing in zip(sights(), FED[name][2], strict=True):
        np.testing.assert_array_equal(found, drawn(drawing))


@pytest.mark.parametrize("name", some_slow(FED, SLOW))
def test_rows_of_a_step_are_rows_of_the_whole(name):
    """Each row of each step stands in the whole pass: the same vector, place and time."""
    generator, params, quantizer = make(name)
    feed, content, n = generator.feed, contents(generator, 1), generator.tokenizer.grid.size
    order = sequence(generator)
    steps = [step for group in groups(order, feed) for step in group]

    @jax.jit
    def found():
        """bool [M, K] for each step: which of its rows are which of the whole pass."""
        now, every = order, []
        state, whole = feed.apply({"params": params["feed"]}, 2, method="begin"), None
        for step in steps:
            if not feed.cached:
                known = np.tile(np.arange(n) >= step.start, (2, 1)).astype(np.int32)
                this = dataclasses.replace(generator, feed=feed.clone(most_known=step.most_known))
                now = dataclasses.replace(order, slots=np.tile(np.arange(n), (2, 1)), steps=known)
                of_stages, condition, apply = layouts(this, params, quantizer, content, now)
                whole = of_stages[step.segment * len(generator.stages)]  # of the step's round
            elif whole is None:
                (whole, *_), condition, apply = layouts(generator, params, quantizer, content, now)
            known = drafted(generator, content, now.slots[..., step.at()])
            rows = apply("step_inputs", state, known, condition, now, step, quantizer)
            state = apply("absorb", state, content, step, quantizer)
            same = jnp.all(jnp.abs(rows.x[0][:, None] - whole.x[0]) < 1e-5, axis=-1)
            for attribute in ("times", "coords"):
                if attribute == "times" and (whole.layout.views or not feed.cached):
                    continue  # those of a union, or 0 and 1: known or not
                of_step, of_whole = (
                    x[0] if x.ndim > (attribute == "coords") + 1 else x
                    for x in (getattr(r.layout, attribute) for r in (rows, whole))
                )
                equal = of_step[:, None] == of_whole
                same = same & (equal.all(-1) if equal.ndim == 3 else equal)
            every.append(same)
        return every

    every = found()
    for step, same in zip(steps, every, strict=True):
        assert same.any(axis=1).all(), f"step {step.index}: a row that is not in the whole pass"
    if feed.cached:
        assert sum(len(same) for same in every) >= every[0].shape[1]


@pytest.mark.parametrize("name", some_slow(FED, SLOW))
def test_nothing_knows_what_comes_later(name):
    """Hidden vectors of slots of step s don't change with contents of steps s and after."""
    generator, params, quantizer = make(name)
    content, other, labels = contents(generator, 1), contents(generator, 2), labels_for(generator, 2)
    n, order = generator.tokenizer.grid.size, sequence(generator)

    @jax.jit
    def hidden(content, steps):
        now = order if generator.feed.cached else Order(jnp.tile(jnp.arange(n), (2, 1)), steps)
        found, rows = generator.hidden(params, quantizer, drafted(generator, content), labels, now)
        slots = jnp.broadcast_to(jnp.asarray(rows.slots), (2, n))
        if generator.head.each_stage:  # later stages are told the slot's own first codes
            found = found[:, :, 0]
        return jax.vmap(lambda h, s: jnp.zeros_like(h).at[s].set(h))(found, slots)

    for s, start in enumerate(order.starts):
        later = np.asarray(order.steps) >= s
        here = np.asarray(order.steps) == s
        steps = jnp.tile(jnp.asarray(later.astype(np.int32)), (2, 1))
        mixed = jnp.where(later.reshape(1, -1, *[1] * (content.ndim - 2)), other, content)
        first, second = hidden(content, steps), hidden(mixed, steps)
        np.testing.assert_allclose(first[:, here], second[:, here], atol=1e-5)
        first = 0 if order.segments is None else list(order.segments).index(order.segments[start])
        if start > first:  # and what came before is seen, of the level where rounds go by level
            third = hidden(other, steps)
            assert np.all(np.any(np.abs(first - third)[:, here] > 1e-4, axis=-1))
