"""The noisy feed: who sees whom, and rows of a step that are those of the whole pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import noisy, normal
from sight import drawn, seen
from systems import SYSTEMS

from vargen import models
from vargen.config import part
from vargen.content import Noised, take
from vargen.feeds.rows import Step
from vargen.mixers.block import NEUTRAL, spread

STEPS = np.repeat(np.arange(3), 2)


def eighths(x):
    return np.round(8 * np.asarray(x)) / 8


@functools.cache
def build(name):
    """A generator of six slots in three steps; its parameters are eighths, of which sums are exact."""
    c = SYSTEMS[name]()
    with c.data.ignore_type():
        c.data.image_size = (8, 12)
    c.order = part("chunks", size=2)
    generator = models.build_generator(c, models.build_tokenizer(c))
    return generator, jax.tree.map(eighths, noisy(generator.init))


# Three steps of two slots. ACDiT: four contents, that see contents up to their own step; then six drafts, that see
# contents before their step and its drafts. xAR: the drafts alone, each up to its step.
SIGHT = dict(
    acdit="""
        ##........ ##........ ####...... ####......
        ....##.... ....##.... ##....##.. ##....##.. ####....## ####....##
    """,
    xar="##.... ##.... ####.. ####.. ###### ######",
)


@pytest.mark.parametrize("name", SIGHT)
def test_visibility(name):
    for layout in build(name)[0].layouts():
        np.testing.assert_array_equal(seen(layout), drawn(SIGHT[name]))


@pytest.mark.parametrize("name", SIGHT)
def test_a_step_has_rows_of_the_whole_pass(name):
    generator, params = build(name)
    order = generator.ordering.decoding(None, 1)
    known, draft = (jnp.asarray(eighths(normal(seed, 2, 6, 4))) for seed in (1, 2))

    @jax.jit
    def passes():
        """Of each step its rows' vectors and conditions, and those of the whole pass."""
        feed = generator.feed.bind({"params": params["feed"]})
        condition = generator.condition.apply({"params": params["condition"]}, jnp.array([1, 2]))
        found = []
        for s in range(3):
            before = 2 * min(s, 1)
            # What is known has no noise; the step's slots hold the draft.
            noisy = jnp.where(STEPS[:, None] == s, draft, known)
            level = jnp.where(STEPS == s, 700.0, 0.0) * jnp.ones((2, 1))
            whole = feed.inputs(Noised(known, noisy, level), condition, order)
            step = Step(s, 2 * s, 2, 2, 2 * s, before, begins=s == 0)
            rows = feed.step_inputs((), Noised(noisy, noisy, jnp.float32(700.0)), condition, order, step)
            first = whole.layout.keep if name == "acdit" else 0
            at = np.concatenate([np.arange(2 * s - before, 2 * s), first + np.arange(2 * s, 2 * s + 2)])
            np.testing.assert_array_equal(rows.layout.coords, whole.layout.coords[at])
            np.testing.assert_array_equal(rows.slots, [2 * s, 2 * s + 1])
            assert rows.layout.keep == before and rows.layout.start == 2 * s - before
            np.testing.assert_array_equal(rows.owner < 0, whole.owner[at] < 0)
            # In the cache a draft lies where its content will: whoever looks sees what the whole pass shows it.
            sight = seen(rows.layout)[:, : 2 * s + 2]
            places = np.concatenate([np.arange(2 * s), first + np.arange(2 * s, 2 * s + 2)])
            np.testing.assert_array_equal(sight, seen(whole.layout)[np.ix_(at, places)])
            of_step, of_whole = rows.owner[rows.owner >= 0], whole.owner[at][rows.owner >= 0]
            conditions = rows.condition[:, of_step], whole.condition[:, of_whole]
            found.append(((rows.x, whole.x[:, at]), conditions))
        return found, take(known, rows.slots)

    found, last = passes()
    for rows, conditions in found:
        np.testing.assert_allclose(*rows, rtol=1e-6)
        np.testing.assert_allclose(*conditions, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(last, known[:, 4:])


def test_rows_that_share_a_condition_or_have_none():
    x = normal(0, 2, 3, 6, 5)
    neutral = np.broadcast_to(np.asarray(NEUTRAL)[:, None], (6, 5))
    owners = [-1, -1, -1, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2], [2, -1, 0]
    every = jax.jit(lambda x: [spread(x, np.asarray(owner), jnp.asarray(neutral)) for owner in owners])(x)
    x = np.asarray(x)
    for owner, found in zip(owners, every, strict=True):
        for i, which in enumerate(owner):
            np.testing.assert_array_equal(found[:, i], x[:, which] if which >= 0 else [neutral, neutral])
    assert spread(x, None, neutral) is x
