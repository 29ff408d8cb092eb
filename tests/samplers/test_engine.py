"""The decode engine against the parallel pass."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import normal
from systems import SLOW, SYSTEMS, labels_for, make, some_slow
from uncached import uncached

from vargen import models
from vargen.kernels.few_rows import call as few_rows
from vargen.kernels.step_attention import call as step_attention
from vargen.layers import Embed
from vargen.model import Model
from vargen.orders import Order
from vargen.samplers import Sampling, decode, policies
from vargen.samplers.policies import groups
from vargen.segments import PICTURE

SLOW_CACHED = [
    *SLOW,
    *"hmar hmar_masked flowar flexvar acdit xar dnd rqtransformer bits hart orthus llamagen_memory".split(),
    *"rar arpg randar jpeglm mamba mar".split(),
]
SLOW_GIVEN = (
    "rqtransformer dnd rar hmar hmar_masked mar mar_dit maskgit maskgil randar xar acdit bits arpg".split()
)


# What Hi-MAR's second round sees isn't told by contents alone: tests/interop/test_himar.py walks through its steps.
@pytest.mark.parametrize("name", some_slow((name for name in SYSTEMS if name != "himar"), SLOW_CACHED))
def test_cached_equals_uncached(name):
    c, generator, params, tokenizer_params = make(name)
    filters = dict(top_k=9, top_p=0.9) if generator.head.explicit else {}
    schedule = "ramp" if name in ("var", "hmar_masked") else "linear"
    more = filters | dict(schedule=c.sampling.schedule)
    sampling = Sampling.make(guidance=2.0, guidance_schedule=schedule, temperature=0.9, **more)
    labels, quantizer = labels_for(generator, 3), tokenizer_params["quantizer"]
    args = (params, quantizer, labels, jax.random.key(5), sampling)
    found, order, *_ = jax.jit(functools.partial(decode, generator))(*args)
    expected = generator.tokenizer.slot.padded(uncached(generator, *args))
    picture = np.asarray(generator.sequence.part(found, PICTURE))
    assert len(np.unique(picture.reshape(3, -1), axis=0)) == 3
    chex.assert_trees_all_close(found, expected, rtol=ROUNDING.get(name, 1e-4), atol=ROUNDING.get(name, 1e-4))
    n = generator.sequence.grid.size
    np.testing.assert_array_equal(
        np.sort(np.broadcast_to(order.slots, (3, n))), np.arange(n)[None] * np.ones((3, 1))
    )


def test_modulations_made_for_several_steps(monkeypatch):
    """Of the rows of five steps together, three times: as each step's made in it."""
    _, generator, params, tokenizer_params = make("rar")
    args = (params, tokenizer_params["quantizer"], labels_for(generator, 2), jax.random.key(5))
    found = []
    for most in (8, 0):
        monkeypatch.setattr(policies, "AHEAD", most)
        program = jax.jit(
            functools.partial(decode, generator, sampling=Sampling.make(guidance=2.0), scored=True)
        )
        traced = program.trace(*args)
        assert ("length=15" in str(traced.jaxpr)) == (most == 0)
        found.append(traced.lower().compile()(*args))
    np.testing.assert_array_equal(found[0].content, found[1].content)
    np.testing.assert_allclose(found[0].score, found[1].score, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["rar", "mar"])
@pytest.mark.slow
def test_by_the_kernels_of_a_gpu(name, monkeypatch):
    """What a GPU runs for few rows, interpreted in XLA's place, draws the same."""
    _, generator, params, tokenizer_params = make(name)
    sampling = Sampling.make(guidance=2.0)
    args = (params, tokenizer_params["quantizer"], labels_for(generator, 2), jax.random.key(5), sampling)
    expected = jax.jit(functools.partial(decode, generator))(*args)
    jax.clear_caches()
    monkeypatch.setitem(few_rows.IMPLEMENTATIONS, "xla", few_rows.IMPLEMENTATIONS["gpu_interpret"])
    cached = functools.partial(step_attention.few.attend_cached, interpret=True)
    monkeypatch.setitem(step_attention.CACHED, "xla", cached)
    found = jax.jit(functools.partial(decode, generator))(*args)
    jax.clear_caches()
    chex.assert_trees_all_close(found.content, expected.content, rtol=1e-4, atol=1e-4)


# Of a draft that is noise alone the first pass makes 157 times as much; patches go in again, one after another.
ROUNDING = dict(acdit=1e-3, orthus=1e-3)


PREFIX = np.arange(16) < 6
SCATTERED = np.isin(np.arange(16), (2, 3, 7, 8, 13))
GIVEN = dict(
    llamagen=PREFIX,
    rqtransformer=PREFIX,
    dnd=PREFIX,
    rar=PREFIX,
    var=np.arange(21) < 5,
    hmar=np.arange(21) < 5,
    hmar_masked=np.arange(21) < 5,
    mar=SCATTERED,
    mar_dit=SCATTERED,
    maskgit=SCATTERED,
    maskgil=SCATTERED,
    randar=SCATTERED,
    arpg=SCATTERED,
    acdit=np.arange(16) < 8,
    bits=np.arange(16) < 8,
    xar=np.arange(16) < 8,
)


@pytest.mark.parametrize("name", some_slow(GIVEN, SLOW_GIVEN))
def test_given_slots_stay_and_the_rest_follows_from_them(name):
    c, generator, params, tokenizer_params = make(name)
    known, labels, quantizer = GIVEN[name], labels_for(generator, 2), tokenizer_params["quantizer"]
    params = params | dict(feed=jax.tree.map(lambda x: 5 * x, params["feed"]))  # what is known counts
    slot = generator.tokenizer.slot
    below = slot.vocab or 16
    content = (4 * normal(3, 2, len(known), *slot.shape)).astype(slot.dtype) % below
    schedule = "ramp" if name == "hmar_masked" else "constant"
    settings = dict(guidance=2.0, guidance_schedule=schedule, temperature=0.9)
    sampling = Sampling.make(**settings, schedule=c.sampling.schedule)
    run = jax.jit(
        lambda p, c: decode(generator, p, quantizer, labels, jax.random.key(5), sampling, (c, known))
    )
    found, order, *_ = run(params, content)
    assert order.given == known.sum()
    np.testing.assert_array_equal(found[:, known], content[:, known])
    expected = uncached(generator, params, quantizer, labels, jax.random.key(5), sampling, (content, known))
    rounding = ROUNDING.get(name, 1e-4)
    # What is known is large here; a few units in the last place of the largest number.
    rounding = max(rounding, 1e-6 * float(np.abs(expected).max()))
    chex.assert_trees_all_close(found, expected, rtol=rounding, atol=rounding)
    other = run(params, (content + 3) % below)[0]
    assert not np.array_equal(found[:, ~known], other[:, ~known])


@pytest.mark.parametrize(
    "given",
    [pytest.param((), marks=pytest.mark.slow), ("picture",), pytest.param(("text",), marks=pytest.mark.slow)],
    ids=["nothing", "picture", "text"],
)
def test_segments_in_every_direction(given):
    """What is given stays, the rest is drawn after it: as by whole passes, and it follows from what is given."""
    _, generator, params, tokenizer_params = make("orthus")
    sequence, quantizer = generator.sequence, tokenizer_params["quantizer"]
    parts = dict(
        text=jnp.arange(12).reshape(2, 6) % 7, picture=jax.random.normal(jax.random.key(3), (2, 16, 4))
    )
    known, none = sequence.known(*given), jnp.asarray(generator.condition.parse([None, None]))
    sampling = Sampling.make(guidance=2.0 if given == ("text",) else 1.0)
    run = jax.jit(lambda p, c: decode(generator, p, quantizer, none, jax.random.key(5), sampling, (c, known)))
    found, order, *_ = run(params, sequence.join(parts))
    assert order.given == known.sum()
    for name in given:
        np.testing.assert_array_equal(sequence.part(found, name), parts[name])
    content = sequence.join(parts)
    expected = uncached(generator, params, quantizer, none, jax.random.key(5), sampling, (content, known))
    # Every patch goes in again: under guidance roundings grow from 5e-7 to 3e-2 in sixteen patches.
    chex.assert_trees_all_equal(found["text"], expected["text"])
    np.testing.assert_allclose(found["picture"][:, :14], expected["picture"][:, :14], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found["picture"], expected["picture"], atol=0.1)
    other = run(params, sequence.join(dict(text=(parts["text"] + 1) % 7, picture=parts["picture"] * 2)))[0]
    for name in {"text", "picture"} - set(given):
        same = np.array_equal(sequence.part(other, name), sequence.part(found, name))
        assert same == (not given)


def test_given_slots_that_cannot_come_first():
    for name, known in (
        ("llamagen", SCATTERED),
        ("var", np.arange(21) < 4),
        ("hmar_masked", np.arange(21) < 4),
    ):
        _, generator, params, tokenizer_params = make(name)
        with pytest.raises(
            ValueError, match="given slots: expected whole (steps of the order|levels), from the first one on"
        ):
            generator.ordering.decoding(None, 1, 0, known)


@pytest.mark.parametrize("name", some_slow(["var", "llamagen", "mar"], ["var", "mar"]))
def test_no_recompilation_and_independence_of_the_batch(name):
    config, generator, params, tokenizer_params = make(name)
    model = Model(config, tokenizer_params, params)
    labels = jnp.array([1, 2])
    first = model.generate(labels, 0, guidance=1.5, temperature=1.0)[0]
    for seed, options in ((1, dict(guidance=3.0)), (2, dict(guidance=1.5, temperature=0.7))):
        other = model.generate(labels[::-1], seed, **{"temperature": 1.0, **options})[0]
        assert not np.array_equal(first, other)
    assert model._generate._cache_size() == 1
    # An image depends on the seed, its place and its label, not on what else is in the batch.
    alone = model.generate(jnp.array([1, 9]), 0, guidance=1.5, temperature=1.0)[0]
    chex.assert_trees_all_equal(alone[0], first[0])
    pictures = model.sample_steps(labels, 0, guidance=1.5, temperature=1.0)
    chex.assert_trees_all_close(pictures[-1], model.decode(first), atol=1e-5)


def test_nothing_is_read_or_written_where_nothing_is():
    _, generator, params, tokenizer_params = make("llamagen")
    n, labels, key = 16, labels_for(generator, 1), jax.random.key(0)

    def draw(slots, steps):
        order = Order(np.asarray(slots), np.asarray(steps))
        args = (params, tokenizer_params["quantizer"], labels, key, Sampling.make())
        return jax.eval_shape(lambda *args: decode(generator, *args, order=order).content, *args)

    assert draw(np.arange(n), np.arange(n)).shape == (1, n)
    for slots, steps, words in (
        (np.arange(15), np.arange(15), "expected 16 slots and the step of each, found 15 in 15 steps"),
        (np.arange(17), np.arange(17), "expected 16 slots and the step of each, found 17 in 17 steps"),
        (np.arange(n), np.arange(15), "expected 16 slots and the step of each, found 16 in 15 steps"),
        (np.arange(n) % 15, np.arange(n), "expected each of 16 slots once, found \\[0, 1, 2"),
    ):
        with pytest.raises(ValueError, match=f"order: {words}"):
            draw(slots, steps)
    table = Embed(4, 2, jax.nn.initializers.zeros)
    for index in (np.array([0, 4]), np.array([-1])):
        with pytest.raises(ValueError, match="expected indices from 0 to 3, found"):
            jax.eval_shape(lambda k, i=index: table.init(k, i), key)


def test_guidance_schedules():
    sizes = np.array([1, 3, 4, 8])

    def scales(**options):
        return np.asarray(Sampling.make(guidance=3.0, **options).scales(sizes))

    np.testing.assert_allclose(scales(), 3.0)
    np.testing.assert_allclose(scales(guidance_schedule="ramp"), [1, 2, 3, 4], rtol=1e-6)
    np.testing.assert_allclose(
        scales(guidance_schedule="linear"), 1 + 2 * np.array([1, 4, 8, 15]) / 16, rtol=1e-6
    )
    expected = 1 + 2 * (1 - np.cos(np.pi * (np.arange(4) / 4) ** 2)) / 2
    np.testing.assert_allclose(scales(guidance_schedule="cosine", guidance_power=2.0), expected, rtol=1e-6)
    np.testing.assert_allclose(scales(guidance_steps=2), [3, 3, 1, 1])
    # A schedule for each level, of four and twelve slots.
    by_level = Sampling.make(guidance=3.0, guidance_schedule="linear", guidance_before=(2.0,))
    levels = np.repeat([0, 1], [4, 12])
    expected = np.r_[1 + np.array([1, 3]) / 4, 1 + 2 * np.array([4, 11]) / 12]
    np.testing.assert_allclose(by_level.scales(sizes, levels=levels), expected, rtol=1e-6)
    with pytest.raises(
        ValueError, match="guidance_before: expected one number for each level .*, 0, found 1"
    ):
        by_level.scales(sizes)


def _groups(system, sizes, given=0, **changes):
    order = Order(np.arange(sum(sizes)), np.repeat(np.arange(len(sizes)), sizes), given=given)
    c = SYSTEMS[system]()
    return groups(order, models.build_generator(c, models.build_tokenizer(c)).feed)


def test_groups():
    raster = _groups("llamagen", [1] * 5)
    assert [len(g) for g in raster] == [5] and raster[0][3].start == 3 and raster[0][0].size == 1
    assert [(g[0].start, g[0].size) for g in _groups("llamagen", [1, 4, 16])] == [(0, 1), (1, 4), (5, 16)]
    assert [len(g) for g in _groups("var", [4, 4])] == [1, 1]
    assert [len(g) for g in _groups("rar", [1] * 5)] == [1, 4]
    assert [(g[0].start, g[0].before, len(g)) for g in _groups("randar", [1, 1, 1, 2, 2, 2])] == [
        (0, 0, 1),
        (1, 1, 2),
        (3, 1, 1),
        (5, 2, 2),
    ]
    masked = _groups("mar", [1, 1, 2, 3, 4, 5])
    assert sum(len(g) for g in masked) == 6
    for group in masked:
        assert group[0].size == max(s.count for s in group)
        assert group[0].most_known == max(s.start for s in group)


def test_groups_after_given_slots():
    raster = _groups("rar", [1] * 5, given=3)
    assert [(g[0].start, g[0].size, len(g)) for g in raster] == [(0, 3, 1), (3, 1, 2)]
    levels = _groups("var", [1, 4, 16], given=5)
    assert [(g[0].index, g[0].start, g[0].size) for g in levels] == [(0, 0, 1), (1, 1, 4), (2, 5, 16)]
    masked = _groups("mar", [6, 1, 2, 3], given=6)
    assert [s.start for g in masked for s in g] == [6, 7, 9]
    query = _groups("arpg", [3, 2, 2, 2], given=3)
    assert [(g[0].start, g[0].before, g[0].begins, len(g)) for g in query] == [
        (3, 3, True, 1),
        (5, 2, False, 2),
    ]
