"""The branched feed, and levels that take several steps: HMAR's formulas (arXiv 2506.04421), by other ways."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import normal
from systems import labels_for
from systems import make as make_anew

from vargen.cli import common
from vargen.feeds.refine import lognorm
from vargen.model import Model
from vargen.orders import MaskedLevels, Order
from vargen.samplers import Sampling, decode
from vargen.samplers.engine import begin
from vargen.samplers.policies import groups
from vargen.samplers.step import advance
from vargen.slots import Grid
from vargen.tokenizers import resample

make = functools.cache(make_anew)
LEVEL = np.repeat([0, 1, 2], [1, 4, 16])
SCHEDULE = ((1,), (1, 3), (5, 4, 7))
SIDES_256, SIDES_512 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)


def masking(masked):
    """Order of a training pass where slots bool [B, N] are masked."""
    steps = 2 * LEVEL + masked
    slots = np.argsort(steps, axis=1, kind="stable")
    return Order(slots, np.take_along_axis(steps, slots, axis=1))


def codes(seed):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 16, (2, 21)), jnp.int32)


def test_a_level_alone_is_what_it_is_among_the_others():
    """Hidden vectors don't change with whatever stands in the rows of other levels."""
    _, generator, params, tokenizer_params = make("hmar_masked")
    content = codes(1)

    @jax.jit
    def hidden(steps, noise):
        condition = generator.condition.apply({"params": params["condition"]}, jnp.array([1, 2]))
        modulations = generator.modulations(params, condition)
        order = Order(np.tile(np.arange(21), (2, 1)), steps)
        args = (content, condition, order, tokenizer_params["quantizer"])
        rows = generator.feed.apply({"params": params["feed"]}, *args, method="inputs")
        rows = dataclasses.replace(rows, x=rows.x + noise)
        return generator.through(params, rows, condition, modulations)[0]

    steps = np.tile(2 * LEVEL + (LEVEL > 0), (2, 1))
    whole = np.asarray(hidden(steps, np.zeros((2, 21, 16), np.float32)))
    for level in range(3):
        here = level == LEVEL
        noise = np.where(here[:, None], 0, 5 * np.asarray(normal(2, 2, 21, 16)))
        found = np.asarray(hidden(steps, noise))
        np.testing.assert_allclose(found[:, here], whole[:, here], atol=1e-5)
        assert np.abs(found - whole)[:, ~here].min(axis=-1).max() > 1e-3


@functools.cache
def rows_of_masked():
    """The rows and their weight of steps and slots int [2, 21], and, for each level but the first, what is known of the
    levels before and of its own, at its size."""
    _, generator, params, tokenizer_params = make("hmar_masked")
    tokenizer, quantizer, content = generator.tokenizer, tokenizer_params["quantizer"], codes(1)

    @jax.jit
    def run(slots, steps):
        condition = generator.condition.apply({"params": params["condition"]}, jnp.array([1, 2]))
        args = (content, condition, Order(slots, steps), quantizer)
        rows = generator.feed.apply({"params": params["feed"]}, *args, method="inputs")
        assert rows.layout.branch == 1 and rows.layout.window == 0
        image, known = jnp.zeros((2, 4, 4, 4)), []
        for level in range(3):
            # Of the picture's parts one alone is known: what it adds.
            alone = tokenizer.latents(quantizer, content, np.tile(level == LEVEL, (2, 1)))
            known.append([resample.area(x, (2**level, 2**level)).reshape(2, -1, 4) for x in (image, alone)])
            image = image + alone
        return rows.x, rows.weight, condition.vector, known[1:]

    return params["feed"], run


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rows_of_masked_prediction(share):
    """By the formula, in float64: word_embed(down(F)) + [m or word_embed(down(phi(up(e))))] + bias + level + place."""
    masked = np.random.default_rng(0).random((2, 21)) < share
    masked[:, 0] = False
    order = masking(masked)
    feed, run = rows_of_masked()
    x, weight, vector, known = run(order.slots, order.steps)
    feed, vector, known = jax.tree.map(lambda x: np.asarray(x, np.float64), (feed, vector, known))
    kernel, bias = feed["content"]["latents"]["kernel"], feed["content"]["latents"]["bias"]
    expected = [vector[:, None] + feed["first"]]
    for level, (before, own) in enumerate(known, 1):
        told = np.where(masked[:, level == LEVEL, None], feed["mask"], own @ kernel)
        expected.append(before @ kernel + told + bias)
    expected = np.concatenate(expected, axis=1) + feed["positions"]["table"] + feed["levels"]["table"][LEVEL]
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(weight, masked)


def test_where_all_is_masked_a_level_knows_the_earlier_ones_alone():
    _, generator, params, tokenizer_params = make("hmar_masked")
    masked = np.tile(LEVEL > 0, (2, 1))
    part = masked & (np.arange(21) % 2 > 0)
    labels, quantizer = jnp.array([1, 2]), tokenizer_params["quantizer"]
    hidden = jax.jit(
        lambda content, order: generator.hidden(params, quantizer, content, labels, order)[0],
    )
    one, other = codes(1), codes(2)
    for level in (1, 2):
        here = level == LEVEL
        mixed = np.where(here, other, one)
        found = [np.asarray(hidden(x, masking(masked)))[:, here] for x in (one, mixed, other)]
        np.testing.assert_allclose(found[0], found[1], atol=1e-5)
        assert np.abs(found[0] - found[2]).max() > 1e-3
        known = [np.asarray(hidden(x, masking(part)))[:, here] for x in (one, mixed)]
        assert np.abs(known[0] - known[1]).max() > 1e-3


@pytest.mark.slow
def test_what_is_kept_stays_and_the_rest_is_drawn_again():
    """The sets of kept slots are nested; the first is of the likeliest of the first guess, as they were drawn."""
    _, generator, params, tokenizer_params = make("hmar_masked")
    settings = dict(guidance=2.0, guidance_schedule="ramp", top_k=9, top_p=0.9)
    sampling = Sampling.make(**settings, schedule=SCHEDULE)
    args = (generator, params, tokenizer_params["quantizer"], labels_for(generator, 8))
    order = generator.ordering.scheduled(SCHEDULE).decoding(None, 8)
    steps = [s for group in groups(order, generator.feed, "level") for s in group]
    assert [(s.start, s.count, s.size) for s in steps] == [
        (0, 1, 1), (1, 1, 4), (2, 3, 3), (5, 5, 16), (10, 4, 11), (14, 7, 7)
    ]  # fmt: skip

    @jax.jit
    def every():
        call, decoding = begin(*args, jax.random.key(0), sampling)
        found = []
        for step in steps:
            decoding = advance(call, decoding, step)
            found.append((decoding.content, decoding.slots))
        return found

    changed, before = 0, None
    for step, (content, slots) in zip(steps, jax.device_get(every()), strict=True):
        np.testing.assert_array_equal(np.sort(slots, axis=1), np.tile(np.arange(21), (8, 1)))
        if before is not None:
            first = before[1][:, : step.start]
            np.testing.assert_array_equal(slots[:, : step.start], first)
            kept = [np.take_along_axis(x, first, axis=1) for x in (content, before[0])]
            np.testing.assert_array_equal(*kept)
            changed += np.sum((content != before[0])[:, : step.start + step.size])
        before = content, slots
    assert changed > 60  # of 8 examples' 21 + 3 + 11 + 7 draws of 16 codes


@pytest.mark.slow
def test_a_level_in_one_step_is_next_scale_prediction():
    """The likeliest codes of a model of two branches that never masks, and of its first branch as a model."""
    _, generator, params, tokenizer_params = make("hmar_masked")
    _, plain, _, _ = make("hmar")
    own = {k: v for k, v in params.items() if "masked" not in k}
    own["feed"] = {k: v for k, v in params["feed"].items() if k != "mask"}
    sampling = Sampling.make(guidance=2.0, guidance_schedule="ramp", temperature=0.0)
    found = [
        jax.jit(
            lambda p, g=g: decode(
                g, p, tokenizer_params["quantizer"], jnp.arange(4), jax.random.key(0), sampling
            )
        )(p)
        for g, p in ((generator, params), (plain, own))
    ]
    chex.assert_trees_all_equal(found[0].content, found[1].content)
    assert found[0].passes[0] == found[1].passes[0] == 3


def test_a_schedule_of_passes_is_a_setting():
    """The same parameters, other schedules: other passes, other pictures; guidance is that of the level's first."""
    sizes = np.array([1, 1, 3, 5, 4, 7])
    scales = Sampling.make(guidance=2.0, guidance_schedule="ramp").scales(sizes, (1, 2, 3))
    np.testing.assert_allclose(scales, [1, 2, 1, 3, 1, 1])
    _, generator, params, tokenizer_params = make("hmar_masked")
    args = (params, tokenizer_params["quantizer"], jnp.arange(4), jax.random.key(0))

    @jax.jit
    def passes():
        found = decode(generator, *args, Sampling.make(schedule=[[1], [4], [8, 8]]))
        assert found.order.parts == (1, 1, 2)
        return found.passes

    assert passes().tolist() == [4] * 4
    for wrong, words in (
        (((1,), (2, 1), (16,)), "steps of each level that add up to its slots, 1, 4, 16, found"),
        (((1,), (4,)), "add up to its slots"),
    ):
        with pytest.raises(ValueError, match=f"sampling.schedule: expected .*{words}"):
            decode(generator, *args, Sampling.make(schedule=wrong))
    with pytest.raises(ValueError, match=r"expected one step for the first level, found \(1, 3\)"):
        MaskedLevels(Grid(((2, 2),)), ((4,),)).scheduled(((1, 3),))


def test_weights_of_levels():
    """The authors' numbers at 256 and at 512 pixels, to the five digits that they are known to."""
    for sides, expected in (
        (SIDES_256, "2468 6416 11495 13790 14020 13286 12080 10539 8822 7085"),
        (SIDES_512, "1955 6671 11412 13887 13786 12457 11123 10368 9576 8765"),
    ):
        found = lognorm(Grid(tuple((s, s) for s in sides)))
        np.testing.assert_allclose(1e5 * found, [int(x) for x in expected.split()], atol=0.6)
    # The loss is their sum over levels of the mean over each.
    _, generator, params, tokenizer_params = make("hmar")
    content, labels, quantizer = codes(1), jnp.array([1, 2]), tokenizer_params["quantizer"]
    args = (params, quantizer, content, labels)

    @jax.jit
    def both():
        hidden = generator.hidden(*args, generator.ordering.decoding(None, 2))[0]
        nats = generator.head.apply(generator.of_head(params), hidden, content, method="log_prob")
        return generator.loss(*args, jax.random.key(0), False)[0], -nats

    found, nats = jax.device_get(both())
    levels = np.array([nats[:, level == LEVEL].mean() for level in range(3)])
    np.testing.assert_allclose(found, levels @ lognorm(generator.tokenizer.grid), rtol=1e-5)


def test_masks_of_training():
    """As many slots of each level as a share that is uniform says, rounded up, anywhere in it; none of the first."""
    grid = Grid(((1, 1), (2, 2), (4, 4)))
    order = jax.jit(MaskedLevels(grid, ((1,), (4,), (16,))).training)(jax.random.key(0), np.zeros((4000, 21)))
    slots, steps = np.asarray(order.slots), np.asarray(order.steps)
    masked = np.zeros((4000, 21))
    np.put_along_axis(masked, slots, steps % 2, axis=1)
    np.testing.assert_array_equal(steps // 2, np.tile(LEVEL, (4000, 1)))
    np.testing.assert_array_equal(grid.coords[slots, 0], steps // 2)
    counts = np.stack([masked[:, level == LEVEL].sum(axis=1) for level in range(3)])
    assert counts[0].max() == 0 and counts[1].min() == counts[2].min() == 1
    np.testing.assert_array_equal(counts[1], np.ceil(counts[2] / 4))  # one share for both
    np.testing.assert_allclose(np.bincount(counts[2].astype(int))[1:] / 4000, 1 / 16, atol=0.015)
    np.testing.assert_allclose(masked[:, 5:].mean(axis=0), 8.5 / 16, atol=0.03)


@pytest.mark.slow
def test_kept_slots_are_never_masked():
    """Inpainting: kept slots hold the picture's codes whenever a row is told them, and steps mask others alone."""
    _, generator, params, tokenizer_params = make("hmar_masked")
    kept = np.isin(np.arange(21), (2, 4, *range(5, 13)))
    ordering = generator.ordering.scheduled(SCHEDULE)
    order = ordering.around(ordering.decoding(None, 1), kept)
    # Two of four and eight of sixteen are unknown, of which later steps keep 3 and 4, 7: as many as there are.
    assert order.sizes.tolist() == [1, 2, 2, 8, 1, 7] and order.parts == (1, 2, 3)
    np.testing.assert_array_equal(order.slots[[1, 2]], [2, 4])
    np.testing.assert_array_equal(order.slots[5:13], np.arange(5, 13))
    all_of_it = ordering.around(order, np.ones(21, bool))
    assert all_of_it.sizes.tolist() == [1, 4, 16]
    source = np.asarray(codes(3))
    sampling = Sampling.make(schedule=((1,), (1, 3), (9, 7)))
    args = (params, tokenizer_params["quantizer"], jnp.array([1, 2]), jax.random.key(5), sampling)
    run = jax.jit(lambda source: decode(generator, *args, kept=(source, kept)))
    found, again = jax.device_get([run(source), run((source + 3) % 16)])
    np.testing.assert_array_equal(found.content[:, kept], source[:, kept])
    assert kept[found.order.slots[:, [1, 2]]].all()
    np.testing.assert_array_equal(found.content[:, 0], again.content[:, 0])
    assert np.any(found.content[:, 13:] != again.content[:, 13:])


@pytest.mark.slow
def test_inpainting():
    """Of levels that add up, too, any part of a picture stays: in the codes of slots that lie in it."""
    c, _, params, tokenizer_params = make("hmar_masked")
    model = Model(c, tokenizer_params, params)
    # What reports call the steps of its schedule: the share of slots that is known after each.
    assert common.step_names(model) == ["5 %", "10 %", "24 %", "48 %", "67 %", "100 %"]
    model._decode = lambda params, content: content
    images = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 1)).astype(np.float32)
    kept = np.arange(16)[:, None] * np.ones(16) < 8
    few = dict(schedule=((1,), (4,), (16,)))
    found = np.asarray(model.complete(images, kept, [1, 2], 0, **few))
    expected = np.asarray(model.encode(np.where(kept[..., None], images, 0.0)))
    whole = [1, 2, *range(5, 13)]
    np.testing.assert_array_equal(found[:, whole], expected[:, whole])
    other = np.asarray(model.complete(images, kept, [1, 2], 1, **few))
    assert np.any(other[:, 13:] != found[:, 13:])
