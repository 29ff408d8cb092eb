"""Levels at sampling that training never saw: the same parameters, another number of steps, other sizes and ratios."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import SYSTEMS, make
from uncached import uncached

from vargen import models
from vargen.cli import common
from vargen.config import part
from vargen.errors import UserError
from vargen.model import Model
from vargen.orders.subsets import SomeLevels
from vargen.samplers import Sampling, check, decode
from vargen.slots import Grid


@functools.cache
def model():
    c, _, params, tokenizer_params = make("flexvar")
    return Model(c, tokenizer_params, params)


def test_cached_equals_uncached_over_levels_never_trained():
    """Two steps where training has three, from an oblong first level to a larger picture."""
    levels = ((1, 2), (4, 6))
    over = model().over(levels)
    generator, quantizer = over.generator, over.tokenizer_params["quantizer"]
    labels = jnp.array([1, 2])
    sampling = Sampling.make(guidance=2.0, guidance_schedule="ramp", temperature=0.9, top_k=9)
    args = (over.generator_params, quantizer, labels, jax.random.key(5), sampling)
    found, order = jax.jit(functools.partial(decode, generator))(*args)[:2]
    assert order.sizes.tolist() == [2, 24]
    chex.assert_trees_all_equal(found, uncached(generator, *args))
    pictures = over.decode(found)
    assert pictures.shape == (2, 16, 24, 1)
    assert np.ptp(np.asarray(pictures)) > 0


def test_given_levels_stay_and_lead():
    """A picture's coarse levels, refined: those of the encoder stay, and what follows depends on them."""
    own, quantizer = model(), model().tokenizer_params["quantizer"]
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1)
    content, known = own.encode(images), np.arange(30) < 5
    run = jax.jit(
        lambda c: (
            decode(
                own.generator,
                own.generator_params,
                quantizer,
                jnp.array([1, 2]),
                jax.random.key(5),
                Sampling.make(temperature=0.9),
                (c, known),
            ).content
        )
    )
    found = run(content)
    np.testing.assert_array_equal(found[:, known], content[:, known])
    other = run((content + 1) % 16)
    assert not np.array_equal(found[:, ~known], other[:, ~known])


@pytest.mark.slow
def test_rows_over_levels_that_are_drawn():
    """A training pass over some levels gives the hidden vectors of a grid that has these alone."""
    c, trained, params, tokenizer_params = make("flexvar")
    quantizer, tokenizer = tokenizer_params["quantizer"], trained.tokenizer
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1)
    content = tokenizer.encode(tokenizer_params, images)
    labels = jnp.array([1, 2])

    @jax.jit
    def hidden_of(order):
        hidden, rows = trained.hidden(params, quantizer, content, labels, order)
        return hidden, rows.slots, rows.weight

    draw = jax.jit(lambda key: trained.ordering.training(key, content))
    orders = {}
    for seed in range(9):
        order = draw(jax.random.key(seed))
        there = np.asarray(order.slots)[np.asarray(order.exists)]
        orders[tuple(np.unique(tokenizer.grid.coords[there, 0]) + 1)] = order
    assert set(orders) == {(1, 2, 4), (1, 3, 4)}  # one of the second and the third
    for levels, order in orders.items():
        found, slots, weight = hidden_of(order)
        kept = np.asarray(order.exists)
        np.testing.assert_array_equal(weight, np.broadcast_to(kept, (2, len(kept))))
        np.testing.assert_array_equal(slots[kept], np.sort(slots[kept]))
        c.sampling.levels = tuple(int(x) for x in levels)
        own, alone = models.sampled(c, tokenizer, trained)
        some = own.encode(tokenizer_params, images)
        np.testing.assert_array_equal(some, content[:, slots[kept]])
        plain = alone.ordering.decoding(None, 2)
        expected = jax.jit(lambda x, g=alone, o=plain: g.hidden(params, quantizer, x, labels, o)[0])(some)
        np.testing.assert_allclose(found[:, kept], expected, atol=2e-5)


def test_positions_are_averages_of_one_table():
    _, generator, params, _ = make("flexvar")
    table = np.asarray(params["feed"]["positions"], np.float64)
    grid = Grid(((1, 1), (2, 3), (7, 4)))
    feed = generator.feed.clone(grid=grid)
    placed = lambda m, x, slots: m._placed(x, slots)  # noqa: E731
    zeros = jnp.zeros((1, grid.size, 16))
    found = feed.apply({"params": params["feed"]}, zeros, np.arange(grid.size), method=placed)[0]
    expected = []
    for height, width in grid.levels:
        for i in range(height):
            for j in range(width):
                rows = slice(5 * i // height, -(-5 * (i + 1) // height))
                columns = slice(5 * j // width, -(-5 * (j + 1) // width))
                expected.append(table[rows, columns].mean(axis=(0, 1)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_levels_are_drawn_as_the_authors_draw_them():
    """The official sets: 1, 2 and 16, five of 3 to 10 and two of 11 to 15, then some left out, 680 slots at most."""
    grid = Grid(tuple((s, s) for s in range(1, 17)))
    usual = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    groups = ((2, 1, 2), (5, 3, 10), (2, 11, 15), (1, 16, 16))
    ordering = SomeLevels(grid, groups, usual, 0.05, (0.1, 0.05, 0.02, 0.01), 680)
    keys = jax.random.split(jax.random.key(0), 20_000)
    chosen = np.asarray(jax.jit(jax.vmap(ordering.drawn))(keys))
    rows = chosen @ np.square(np.arange(1, 17))
    assert rows.max() == 680 and chosen[:, 0].all() and chosen[:, 1].mean() > 0.999
    # Simulated with the authors' code, 200,000 draws: shares to 0.01, three deviations of 20,000 draws.
    assert abs(rows.mean() - 591) < 3
    assert abs(chosen[:, 15].mean() - 0.67) < 0.015
    count = chosen.sum(axis=1)
    assert abs((count == 8).mean() - 0.39) < 0.015 and abs((count == 9).mean() - 0.48) < 0.015
    assert count.min() >= 4 and count.max() == 10
    free = dataclasses.replace(ordering, usual_share=0.0, thinning=(), most=grid.size)
    chosen = np.asarray(jax.jit(jax.vmap(free.drawn))(keys[:4000]))
    assert (chosen.sum(axis=1) == 10).all() and (chosen[:, 2:10].sum(axis=1) == 5).all()
    np.testing.assert_allclose(chosen[:, 2:10].mean(axis=0), 5 / 8, atol=0.03)
    usual_alone = dataclasses.replace(ordering, usual_share=1.0, thinning=())
    np.testing.assert_array_equal(np.flatnonzero(usual_alone.drawn(keys[0])) + 1, usual)


def test_the_ramp_and_the_greedy_levels():
    sides = np.array([*range(1, 11), 12, 14, 16, 23, 32])
    made = Sampling.make(
        guidance=3.0,
        guidance_schedule="ramp",
        guidance_rise=9,
        guidance_side=16,
        top_k=5,
        random_sides=[1, 2, 16],
    )
    np.testing.assert_allclose(made.scales(sides**2)[:13], 1 + 3 * np.arange(13) / 9, rtol=1e-6)
    np.testing.assert_allclose(made.scales(sides**2)[13:], 4.0)
    np.testing.assert_allclose(made.scales(sides[:4] ** 2), [1, 2, 3, 4], rtol=1e-6)
    assert [made.of_step(s * s).top_k for s in (1, 2, 3, 16)] == [5, 5, 1, 5]


@pytest.mark.parametrize("name, known", [("flexvar", True), ("flowar", False), ("maskgit", False)])
def test_greedy_levels_need_codes_and_steps_of_their_own_size(name, known):
    _, generator, _, _ = make(name)
    order, settings = generator.ordering.decoding(None, 1), Sampling.make(random_sides=(2,))
    if known:
        return check(generator, order, settings)
    with pytest.raises(
        ValueError, match="sampling.random_sides: expected none, as they need a categorical head"
    ):
        check(generator, order, settings)


def test_levels_that_cannot_be_drawn():
    with pytest.raises(
        UserError, match="sampling.levels: expected a tuple, each a whole number from 1 to 4096"
    ):
        model().over((0, 4))
    common.check_size(model())
    with pytest.raises(UserError, match="sampling.levels: .* 16x16 pixels, found ones of 8x8"):
        common.check_size(model().over((1, 2)))
    with pytest.raises(UserError, match=r"sampling.levels: expected Model.over\(levels\)"):
        model().generate([1], 0, levels=(1, 2))
    c, _, params, tokenizer_params = make("var")
    with pytest.raises(
        UserError, match="sampling.levels: needs a tokenizer of one level, or whose levels are"
    ):
        Model(c, tokenizer_params, params).over((1, 4))
    c = SYSTEMS["flexvar"]()
    c.feed.places, c.sampling.levels = "slots", (1, 4)
    tokenizer = models.build_tokenizer(c)
    with pytest.raises(UserError, match="needs a generator without parameters for each level"):
        models.sampled(c, tokenizer, models.build_generator(c, tokenizer))
    c.tokenizer.encoder, c.tokenizer.level_weight = part("patch", patch=4, width=8, blocks=1), 0.0
    tokenizer = models.build_tokenizer(c)
    assert models.sampled(c, tokenizer)[0].grid.levels == ((1, 1), (4, 4))
    c.sampling.levels = (1, (4, 6))
    with pytest.raises(
        UserError, match="expected the last to be 4x4, as the encoder takes no other, found 4x6"
    ):
        models.sampled(c, tokenizer)


@pytest.mark.slow
def test_completions_by_levels_and_by_any_part():
    """Kept slots of every level have the picture's codes, and the others follow from them."""
    params = model().generator_params
    content = jax.tree.map(lambda x: 10 * x, params["feed"]["content"])
    params = params | dict(feed=params["feed"] | dict(content=content))  # what is known counts
    own = Model(model().config, model().tokenizer_params, params)
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1)
    labels, top = [1, 2], np.arange(16)[:, None] * np.ones(16) < 8
    content = own.encode(images)
    found = own.continued(content, 5, labels, 0, temperature=0.1)  # the first two levels
    np.testing.assert_array_equal(found[:, :5], content[:, :5])
    pictures = {2: np.asarray(own.complete(images, 2, labels, 0, temperature=0.1))}
    np.testing.assert_array_equal(pictures[2], own.decode(found))
    # Of 1x1 none is whole in the upper half, of 2x2 the first two, of 3x3 three, of 4x4 eight.
    kept = np.concatenate([[0], [1, 1, 0, 0], [1] * 3 + [0] * 6, [1] * 8 + [0] * 8]).astype(bool)
    half = own.encode(jnp.where(top[..., None], images, 0.0))
    given = (own.generator, params, own.tokenizer_params["quantizer"], jnp.array(labels), jax.random.key(0))
    sampling = own.sampling(temperature=0.1)
    found = jax.jit(lambda half: decode(*given, sampling, kept=(half, kept)).content)(half)
    np.testing.assert_array_equal(found[:, kept], half[:, kept])
    pictures["top"] = np.asarray(own.complete(images, top, labels, 0, temperature=0.1))
    np.testing.assert_array_equal(pictures["top"], own.decode(found))
    for name, stays in ((2, 2), ("top", top)):
        other = own.complete(-images, stays, labels, 0, temperature=0.1)
        assert np.abs(other - pictures[name])[:, 8:].max() > 0.01  # in the half that isn't kept
    free = np.asarray(own.generate(labels, 0, temperature=0.1)[0])
    np.testing.assert_array_equal(found[:, 0], free[:, 0])  # nothing is known yet
    assert not np.array_equal(found[:, ~kept], free[:, ~kept])
    with pytest.raises(UserError, match="kept: expected a whole number from 1 to 3, found 4"):
        own.complete(images, 4, [1, 2], 0)
