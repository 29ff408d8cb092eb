"""What every head must show: one that is registered without a row in `MODELLED` fails here.

Heads that draft a step are asked for all their passes with the same hidden vectors.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import normal
from systems import make

from vargen.draws import keyed
from vargen.heads import HEADS
from vargen.heads.head import together
from vargen.layout import Layout
from vargen.samplers import Sampling
from vargen.slots import Slot

# Name -> the system that has it.
MODELLED = dict(
    bernoulli_diffusion="bits",
    categorical="llamagen",
    depth="rqtransformer",
    diffusion="mar",
    dit="mar_dit",
    epsilon="acdit",
    flow="flowar",
    masked_lm="maskgit",
    staged="dnd",
    v_diffusion="orthus",
    velocity="xar",
)
EXPLICIT = ("categorical", "depth", "masked_lm", "staged")
OTHERS = (Slot((), 5), Slot((3,)), Slot((2,), 5))


@functools.cache
def built(name):
    """The head, what it is applied with, the tokenizer's quantiser parameters and slot."""
    c, generator, params, tokenizer_params = make(MODELLED[name])
    slot, quantizer = generator.tokenizer.slot, tokenizer_params["quantizer"]
    if c.head.name == "segments":  # a head for each segment
        return generator.head.heads["picture"], {"params": params["head"]["heads_picture"]}, quantizer, slot
    assert c.head.name == name
    return generator.head, generator.of_head(params), quantizer, slot


def layout(n, apart=False):
    """Rows that are drawn together, or two a step."""
    return Layout(np.arange(n) // 2 * apart, np.stack([np.arange(n), np.zeros(n, int)], -1))


keys = jax.jit(lambda seed, batch, n: keyed(jax.random.key(seed), batch, n), static_argnums=(1, 2))


def hidden_of(name, batch, n, seed=1):
    """Of the width of the systems; of each stage where the head reads them all."""
    head, _, _, slot = built(name)
    stages = slot.shape if head.each_stage else ()
    return np.asarray(normal(seed, batch, n, *stages, 16))


def targets(slot, batch, n):
    content = 9 * np.random.default_rng(2).random((batch, n, *slot.shape), np.float32)
    return content.astype(np.int32) % slot.vocab if slot.vocab else content - 4


@functools.cache
def sampler(name):
    """(params, hidden, draws, guidance or None, temperature) -> content and score."""
    head, _, quantizer, slot = built(name)

    def run(params, hidden, draws, guidance=None, temperature=1.0):
        bound = head.bind(params)
        settings = dataclasses.replace(Sampling.make(), temperature=temperature)
        if head.noise_levels is None:
            args = (draws, layout(draws.shape[1]), settings, guidance, quantizer)
            if not head.each_stage:
                return bound.sample(hidden, *args)[:2]
            return together([bound.sample(hidden[:, :, : i + 1], *args) for i in range(slot.shape[0])])[:2]
        draft = bound.start(draws, settings)
        for at in range(len(head.noise_levels)):
            draft = bound.refine(hidden, draft, at, settings, guidance)
        return draft[:2]

    return jax.jit(run)


def sampled(name, *args, **options):
    return jax.device_get(sampler(name)(built(name)[1], *args, **options))


def test_no_head_is_left_out():
    # Those of other heads: tests/test_segments.py, tests/heads/test_dit.py, tests/heads/test_codes_and_numbers.py.
    assert MODELLED.keys() | {"segments", "rounds", "hybrid"} == HEADS.keys()


@pytest.mark.parametrize("name", MODELLED)
def test_other_slots_are_refused(name):
    head, _, _, slot = built(name)
    head.check(slot)
    for other in OTHERS:
        if (bool(other.vocab), len(other.shape)) == (bool(slot.vocab), len(slot.shape)):
            continue
        with pytest.raises(ValueError, match=f"head {name}: expected .*, found slots of"):
            head.check(other)


@pytest.mark.parametrize("name", MODELLED)
def test_draws(name):
    """Each of what a slot holds; the same for the same draws, whatever the place in the batch; others for others."""
    head, _, _, slot = built(name)
    hidden, draws = hidden_of(name, 4, 3), keys(0, 4, 3)
    content, score = sampled(name, hidden, draws)
    assert content.shape == (4, 3, *slot.shape) and content.dtype == slot.dtype and np.isfinite(content).all()
    assert (score is not None) == head.explicit == (name in EXPLICIT)
    turned = jax.tree.map(lambda x: x[::-1], draws)
    np.testing.assert_allclose(sampled(name, hidden[::-1], turned)[0][::-1], content, atol=1e-5)
    assert not np.array_equal(sampled(name, hidden, keys(1, 4, 3))[0], content)


@pytest.mark.parametrize("name", MODELLED)
def test_guidance(name):
    """At 1 it is none; at 0 the rows without the condition alone count; beyond it changes what is drawn."""
    head, _, _, _ = built(name)
    hidden, other, draws = hidden_of(name, 4, 3), hidden_of(name, 4, 3, seed=5), keys(0, 4, 3)
    both = np.concatenate([hidden, other])
    plain, unconditional = (sampled(name, h, draws)[0] for h in (hidden, other))
    np.testing.assert_allclose(sampled(name, both, draws, 1.0)[0], plain, rtol=1e-5, atol=1e-4)
    assert not np.allclose(sampled(name, both, draws, 4.0)[0], plain, atol=1e-2)
    if head.explicit:
        np.testing.assert_allclose(sampled(name, both, draws, 0.0)[0], unconditional)


@pytest.mark.parametrize("name", MODELLED)
def test_gradients_are_finite_everywhere(name):
    """Also at hidden vectors and contents far out, where nothing is asked, and in every parameter."""
    head, params, quantizer, slot = built(name)
    target = targets(slot, 2, 4)
    if head.noise_levels is not None:
        rngs = {"head": jax.random.key(4)}
        target = head.apply(params, target, np.arange(4) // 2, method="noised", rngs=rngs).target

    @jax.jit
    def gradient(params, hidden, weight):
        def loss(params, hidden):
            value, metrics = head.apply(
                params,
                hidden,
                target,
                layout(4, apart=True),
                weight,
                True,
                quantizer,
                method="loss",
                rngs={"head": jax.random.key(3)},
            )
            return value, metrics

        (value, metrics), found = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, hidden)
        return value, metrics, found

    one, hidden = np.ones((2, 4), np.float32), hidden_of(name, 2, 4)
    for scale, weight in ((0.0, one), (20.0, one), (1.0, 0 * one), (1.0, one)):
        value, metrics, found = gradient(params, np.float32(scale) * hidden, weight)
        assert value.dtype == jnp.float32 and value.shape == ()
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get((value, metrics, found))))
        assert weight.any() or value == 0  # nothing is asked
    for path, g in jax.tree_util.tree_leaves_with_path(found[0]):
        # What all keys have more changes no softmax.
        assert np.any(np.asarray(g)) or "['key']['bias']" in jax.tree_util.keystr(path), (
            f"no gradient reaches {jax.tree_util.keystr(path)}"
        )
    if head.around:  # whose slots look at each other, asked for or not
        return
    # A step that isn't asked for changes nothing.
    first = one * (np.arange(4) < 2)
    moved = hidden.copy()
    moved[:, 2:] += 1.0
    np.testing.assert_allclose(
        gradient(params, hidden, first)[0], gradient(params, moved, first)[0], rtol=1e-5
    )


@pytest.mark.parametrize("name", EXPLICIT)
def test_frequencies_and_log_probabilities(name):
    """What is drawn comes as often as `log_prob` says of each content there is; scores are these."""
    head, params, quantizer, slot = built(name)
    every = np.array(list(itertools.product(range(slot.vocab), repeat=int(np.prod(slot.shape)))), np.int32)
    n, one = 20_000, hidden_of(name, 1, 1)

    @jax.jit
    def run(params):
        log_prob = lambda h, c: head.apply(params, h, c, quantizer, method="log_prob")  # noqa: E731
        of_every = jnp.broadcast_to(one, (1, len(every), *one.shape[2:]))
        nats = log_prob(of_every, every.reshape(1, len(every), *slot.shape))
        hidden = jnp.broadcast_to(one, (n, *one.shape[1:]))
        content, score = sampler(name)(params, hidden, keyed(jax.random.key(4), n, 1))
        return nats[0], content, score, log_prob(hidden, content)

    nats, content, score, of_drawn = jax.device_get(run(params))
    nats = np.float64(nats)
    np.testing.assert_allclose(np.exp(nats).sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(score, of_drawn, atol=1e-4)
    same = content[:, 0].reshape(n, 1, -1) == every
    counts, expected = same.all(-1).sum(0), n * np.exp(nats)
    chi_square = np.sum((counts - expected) ** 2 / expected)
    freedom = len(nats) - 1  # five deviations of the chi-square distribution
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)
    if not slot.shape:
        hidden = np.broadcast_to(one, (4, 3, *one.shape[2:]))
        assert (sampled(name, hidden, keys(4, 4, 3), temperature=0.0)[0] == np.argmax(nats)).all()
