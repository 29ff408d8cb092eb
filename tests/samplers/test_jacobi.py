"""Speculative Jacobi decoding: greedy codes are those of one step after another, drawn ones have the same law."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems
from systems import labels_for

from vargen import models
from vargen.draws import keyed
from vargen.orders import Order
from vargen.samplers import Sampling, check, decode, jacobi

GUIDED = dict(guidance=2.0, guidance_schedule="linear", top_k=9)


def make(name, **changes):
    """Generator of a system with one layer, parameters of it, and a function of these that decodes."""
    c = systems.SYSTEMS[name]()
    c.model.layers = 1
    for group, values in changes.items():
        c[group].update(values)
    generator = models.build_generator(c, models.build_tokenizer(c))
    shapes, rng = jax.eval_shape(generator.init, jax.random.key(0)), np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype), shapes)

    def run(params, labels, settings, seed=5, given=None):
        return decode(generator, params, None, labels, jax.random.key(seed), settings, given)

    return generator, params, run


def sampling(**options):
    return Sampling.make(**{**GUIDED, **options})


@pytest.mark.slow
def test_one_row_a_pass_is_sequential_and_greedy_codes_are_its():
    generator, params, run = make("llamagen")
    run, labels = jax.jit(run), labels_for(generator, 3)
    for temperature in (0.9, 0.0):
        expected = run(params, labels, sampling(temperature=temperature))
        found = run(params, labels, sampling(temperature=temperature, policy="jacobi", lookahead=1))
        np.testing.assert_array_equal(found.content, expected.content)
        assert found.passes.tolist() == expected.passes.tolist() == [16] * 3
    # Where steps of one slot are to take the likeliest codes, several steps ahead do.
    sides = sampling(temperature=0.9, policy="jacobi", lookahead=5, random_sides=(4,))
    np.testing.assert_array_equal(run(params, labels, sides).content, expected.content)
    several = dict(policy="jacobi", lookahead=5, guess="left")
    found = run(params, labels, sampling(temperature=0.0, **several))
    np.testing.assert_array_equal(found.content, expected.content)
    assert found.passes.max() <= 16 and found.passes.min() < 16
    # An example goes its way whatever its neighbours are, and however fast.
    drawn = sampling(temperature=0.9, **several)
    first, second = run(params, labels, drawn), run(params, labels + jnp.array([0, 4, 5]), drawn)
    np.testing.assert_array_equal(first.content[0], second.content[0])
    assert first.passes[0] == second.passes[0] and not np.array_equal(first.content[1:], second.content[1:])
    assert not np.array_equal(first.content, found.content)
    # Drafts that depend on nothing before them are drawn from the law that they are held to, and stand: a pass of
    # guesses gives one code at least, the next one five, and leaves no drafts.
    params["feed"]["content"] = jax.tree.map(jnp.zeros_like, params["feed"]["content"])
    assert run(params, labels, drawn).passes.max() <= 6


@pytest.mark.parametrize(
    "name, lookahead, known",
    [
        pytest.param("llamagen_text", 6, 0, marks=pytest.mark.slow),
        ("rar", 4, 5),
        pytest.param("mamba", 4, 0, marks=pytest.mark.slow),
    ],
)
def test_greedy_codes_are_those_of_one_step_after_another(name, lookahead, known):
    generator, params, run = make(name)
    content, known = np.random.default_rng(1).integers(16, size=(3, 16)), np.arange(16) < known
    given = (jnp.asarray(content), known) if known.any() else None
    run, labels = jax.jit(functools.partial(run, given=given)), labels_for(generator, 3)
    expected = run(params, labels, sampling(temperature=0.0))
    found = run(params, labels, sampling(temperature=0.0, policy="jacobi", lookahead=lookahead))
    np.testing.assert_array_equal(found.content, expected.content)
    np.testing.assert_array_equal(found.content[:, known], content[:, known])
    # One pass brings all that is known.
    assert expected.passes.tolist() == [16 - max(0, known.sum() - 1)] * 3
    assert found.passes.min() < expected.passes.min() and len(set(found.passes.tolist())) > 1


class Spy:
    """Draws that keep what they were to choose from, and choose the same everywhere."""

    def __init__(self, choice):
        self.choice = choice

    def choose(self, logits):
        self.odds = jax.nn.softmax(logits)
        return jnp.full(logits.shape[:-1], self.choice)


@jax.jit
def verify(laws, drafts, drawn_from, testable, choice):
    spy = Spy(choice)
    return jacobi.verify(laws, drafts, drawn_from, testable, spy), spy.odds


def test_a_draft_and_what_replaces_it_have_the_law_together():
    """The sum over drafts d of q(d) (a(d) [d] + (1 - a(d)) rest) is P, also with zeros, equal laws and certain ones."""
    rng = np.random.default_rng(0)
    laws, drawn_from = rng.dirichlet(np.ones(4), 12), rng.dirichlet(np.ones(4), 12)
    laws[:4, 0] = drawn_from[2:6, 1] = 0
    laws, drawn_from = (x / x.sum(-1, keepdims=True) for x in (laws, drawn_from))
    drawn_from[6], drawn_from[7], laws[8] = laws[6], np.eye(4)[2], np.eye(4)[1]
    both = (jnp.asarray(x, jnp.float32)[:, None] for x in (laws, drawn_from))
    p, q = (jnp.concatenate([x, x], axis=1) for x in both)
    testable = jnp.asarray([True, False])[None] & jnp.ones((12, 1), bool)
    total = np.zeros((12, 4))
    for draft in range(4):
        (count, rest, fell), odds = verify(p, jnp.full((12, 2), draft), q, testable, 1)
        accepted = np.asarray(odds)[:, 0, 0]
        np.testing.assert_array_equal(count, 0)
        instead = np.where(
            np.asarray(fell)[:, None], rest / np.maximum(rest.sum(-1, keepdims=True), 1e-30), laws
        )
        held = drawn_from[:, draft] > 0  # else it is never drawn
        total[held] += (drawn_from[:, draft, None] * (1 - accepted[:, None]) * instead)[held]
        total[held, draft] += (drawn_from[:, draft] * accepted)[held]
    np.testing.assert_allclose(total, laws, atol=1e-6)
    # All that were in the pass stand; behind them it is P.
    (count, _, fell), _ = verify(p, jnp.zeros((12, 2), int), q, testable, 0)
    assert count.tolist() == [1] * 12 and not fell.any()


def test_guesses_from_the_left():
    generator, _, _ = make("llamagen")
    content = jnp.arange(16)[None]
    call = SimpleNamespace(
        generator=generator,
        sampling=Sampling(lookahead=8, guess="left"),
        order=generator.ordering.decoding(None, 1),
        slots=content,
        draws=keyed(jax.random.key(0), 1, 16),
    )
    known, end = jnp.array([6]), jnp.array([7])

    def guess():
        return jax.jit(lambda content: jacobi._guess(call, content, known, end, 0))(content)

    found, laws = guess()
    found = found[0].tolist()
    assert found[:7] == list(range(7)) and found[14:] == [14, 15]
    assert found[7] == 6  # a draft's
    assert found[8] == found[9] == found[10] == found[11] and found[12] == found[13]
    np.testing.assert_array_equal(np.argmax(laws[0, 1:], axis=-1), found[7:14])
    call.sampling = Sampling(lookahead=8)
    other = guess()[0][0].tolist()
    assert [other[8], other[12]] == [found[8], found[12]] and len(set(other[8:12])) > 1


@functools.cache
def tiny():
    """Three codes on 2 x 2 places: a sampler, and the chances of all 81 pictures of class 1."""
    generator, params, run = make("llamagen", tokenizer=dict(vocab=3), data=dict(image_size=8))
    params["head"] = jax.tree.map(lambda x: 4 * x, params["head"])
    pictures = jnp.asarray(np.indices((3,) * 4).reshape(4, -1).T)
    nats = jax.jit(generator.log_likelihood)(params, None, pictures, jnp.full(81, 1))
    chances = np.exp(np.asarray(nats, np.float64))
    np.testing.assert_allclose(chances.sum(), 1, atol=1e-5)
    return functools.partial(jax.jit(run), params), chances


@pytest.mark.parametrize("lookahead, guess", [(3, "left"), pytest.param(4, "random", marks=pytest.mark.slow)])
def test_the_law_is_that_of_one_step_after_another(lookahead, guess):
    run, chances = tiny()
    count, settings = 20_000, Sampling.make(policy="jacobi", lookahead=lookahead, guess=guess)
    found = run(jnp.full(count, 1), settings)
    seen = np.bincount(np.asarray(found.content) @ 3 ** np.arange(4)[::-1], minlength=81)
    away, freedom = chi_square(seen, count * chances)
    assert abs(away - freedom) < 3.5 * np.sqrt(2 * freedom), (away, freedom)
    # It would be seen if one picture in 20 were drawn from the uniform law.
    away, freedom = chi_square(seen, count * (0.95 * chances + 0.05 / 81))
    assert away - freedom > 10 * np.sqrt(2 * freedom), (away, freedom)
    assert 1 < np.mean(found.passes) < 4


def chi_square(seen, expected):
    """The statistic, cells that expect few put together, and its degrees of freedom."""
    rare = expected < 5
    seen, expected = (np.append(x[~rare], x[rare].sum()) for x in (seen, expected))
    seen, expected = seen[expected > 0], expected[expected > 0]
    return np.sum((seen - expected) ** 2 / expected), len(seen) - 1


def test_what_it_cannot_do_is_said():
    latents = systems.llamagen()
    latents.tokenizer, latents.head = systems.mar().tokenizer, systems.mar().head
    pairs = Order(np.arange(16), np.arange(16) // 2)
    for c, order, words in (
        (systems.var(), None, r"a feed whose rows may hold drafts \(shift\), found refine"),
        (latents, None, r"a head over one code a slot \(categorical\), found diffusion"),
        (systems.llamagen(), pairs, "an order of one slot a step, found up to 2"),
        (systems.axial(), None, "rows that can be taken back: mixer axial: expected rows"),
    ):
        generator = models.build_generator(c, models.build_tokenizer(c))
        order = order or generator.ordering.decoding(None, 1)
        with pytest.raises(ValueError, match=f"sampling.policy: jacobi needs {words}"):
            check(generator, order, Sampling.make(policy="jacobi"))
        check(generator, order, Sampling.make())
    generator, params, _ = make("llamagen")
    kept = jnp.zeros((2, 16), int), np.arange(16) < 4
    args = params, None, labels_for(generator, 2), jax.random.key(0), Sampling.make(policy="jacobi")
    with pytest.raises(ValueError, match="sampling.policy: jacobi can't put what is kept into its lookahead"):
        decode(generator, *args, kept=kept)
