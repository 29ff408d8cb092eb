"""What every head must show: one that is registered without a row in `MODELLED` fails here.

Heads that draft a step are asked for all their passes with the same hidden vectors.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vargen import parts
from vargen.draws import keyed
from vargen.heads import HEADS
from vargen.layers import Initial
from vargen.layout import Layout
from vargen.samplers import Sampling
from vargen.slots import Slot

WIDTH = 6
CODE, NUMBERS = Slot((), 5), Slot((3,))
# Name -> (what a slot holds, options).
MODELLED = dict(
    categorical=(CODE, dict(init_std=1.0)),
    diffusion=(NUMBERS, dict(depth=1, width=8, sample_steps=3, train_steps=10)),
    epsilon=(NUMBERS, dict(sample_steps=3)),
    masked_lm=(CODE, {}),
    velocity=(NUMBERS, dict(sample_steps=3)),
)


def make(name):
    """The head, and parameters none of which is zero."""
    slot, options = MODELLED[name]
    common = dict(vocab=slot.vocab, channels=slot.shape[-1] if slot.shape else 4, initial=Initial(0.5))
    head = parts.build(HEADS, dict(options, name=name), "head", **common, dtype=jnp.float32)
    head.check(slot)
    noise = np.random.default_rng(0)
    shared = {name: noise.normal(size=(slot.vocab, WIDTH)).astype(np.float32) for name in head.shares}
    init = head.init(jax.random.key(0), jnp.zeros((1, 1, WIDTH))) if not shared else None
    if shared:
        key = {"params": jax.random.key(0)}
        _, init = head.apply({"shared": shared}, jnp.zeros((1, 1, WIDTH)), rngs=key, mutable=["params"])
    params = nn.meta.unbox(init["params"])
    params = jax.tree.map(lambda x: x + 0.3 * noise.normal(size=x.shape).astype(np.float32), params)
    return head, {"params": params, "shared": shared}, slot


def layout(n):
    """Rows that are drawn together."""
    return Layout(np.zeros(n, np.int32), np.stack([np.arange(n), np.zeros(n, int)], -1))


def hidden_of(batch, n, seed=1):
    return jax.random.normal(jax.random.key(seed), (batch, n, WIDTH))


def targets(slot, batch, n):
    content = slot.zeros(batch, n) + 9 * jax.random.uniform(jax.random.key(2), (batch, n, *slot.shape))
    return content.astype(slot.dtype) % slot.vocab if slot.vocab else content - 4


def sampled(head, params, hidden, draws, guidance=None, **options):
    settings = Sampling.make(**options)

    @jax.jit
    def run(params, hidden, draws):
        bound = head.bind(params)
        if head.levels is None:
            return bound.sample(hidden, draws, layout(draws.shape[1]), settings, guidance)
        draft = bound.start(draws, settings)
        for at in range(len(head.levels)):
            draft = bound.refine(hidden, draft, at, settings, guidance)
        return draft

    return run(params, hidden, draws)[:2]


def test_no_head_is_left_out():
    assert MODELLED.keys() == HEADS.keys()


@pytest.mark.parametrize("name", MODELLED)
def test_other_slots_are_refused(name):
    head, _, slot = make(name)
    for other in {CODE, NUMBERS, Slot((2,), 5)} - {slot}:
        with pytest.raises(ValueError, match=f"head {name}: expected .*, found slots of"):
            head.check(other)


@pytest.mark.parametrize("name", MODELLED)
def test_draws(name):
    """Each of what a slot holds; the same for the same draws, whatever the place in the batch; others for others."""
    head, params, slot = make(name)
    hidden, draws = hidden_of(4, 3), keyed(jax.random.key(0), 4, 3)
    content, score = sampled(head, params, hidden, draws)
    assert content.shape == (4, 3, *slot.shape) and content.dtype == slot.dtype and np.isfinite(content).all()
    assert (score is None) == (not head.explicit)
    turned = jax.tree.map(lambda x: x[::-1], draws)
    np.testing.assert_allclose(sampled(head, params, hidden[::-1], turned)[0][::-1], content, atol=1e-5)
    assert not np.array_equal(sampled(head, params, hidden, keyed(jax.random.key(1), 4, 3))[0], content)


@pytest.mark.parametrize("name", MODELLED)
def test_guidance(name):
    """At 1 it is none; at 0 the rows without the condition alone count; beyond it changes what is drawn."""
    head, params, _ = make(name)
    hidden, draws = hidden_of(8, 3), keyed(jax.random.key(0), 8, 3)
    other = hidden_of(8, 3, seed=5)
    both = jnp.concatenate([hidden, other])
    plain, unconditional = (sampled(head, params, h, draws)[0] for h in (hidden, other))
    np.testing.assert_allclose(sampled(head, params, both, draws, 1.0)[0], plain, rtol=1e-5, atol=1e-4)
    assert not np.allclose(sampled(head, params, both, draws, 4.0)[0], plain, atol=1e-2)
    if head.explicit:
        np.testing.assert_allclose(sampled(head, params, both, draws, 0.0)[0], unconditional)


@pytest.mark.parametrize("name", MODELLED)
def test_gradients_are_finite_everywhere(name):
    """Also at hidden vectors and contents far out, where nothing is asked, and in every parameter."""
    head, params, slot = make(name)
    target = targets(slot, 2, 4)

    @jax.jit
    def gradient(params, hidden, weight):
        def loss(params, hidden):
            value, metrics = head.apply(
                params,
                hidden,
                target,
                layout(4),
                weight,
                True,
                method="loss",
                rngs={"head": jax.random.key(3)},
            )
            return value, metrics

        (value, metrics), found = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, hidden)
        return value, metrics, found

    one = jnp.ones((2, 4))
    for scale, weight in ((1.0, one), (0.0, one), (20.0, one), (1.0, 0 * one)):
        value, metrics, found = gradient(params, scale * hidden_of(2, 4), weight)
        assert value.dtype == jnp.float32 and value.shape == ()
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, metrics, found)))
    assert value == 0  # nothing is asked
    value, _, found = gradient(params, hidden_of(2, 4), one)
    for path, g in jax.tree_util.tree_leaves_with_path(found[0]):
        assert np.any(g), f"no gradient reaches {jax.tree_util.keystr(path)}"
    # A row that isn't asked for changes nothing.
    first = one.at[:, 1:].set(0)
    moved = hidden_of(2, 4).at[:, 1:].add(1.0)
    np.testing.assert_allclose(
        gradient(params, hidden_of(2, 4), first)[0], gradient(params, moved, first)[0], rtol=1e-5
    )


@pytest.mark.parametrize("name", [name for name in MODELLED if MODELLED[name][0].vocab])
def test_frequencies_and_log_probabilities(name):
    """What is drawn comes as often as `log_prob` says of each content there is; scores are these."""
    head, params, slot = make(name)
    every = np.array(list(itertools.product(range(slot.vocab), repeat=int(np.prod(slot.shape)))))
    every = jnp.asarray(every.reshape(1, len(every), *slot.shape), jnp.int32)
    log_prob = jax.jit(lambda h, c: head.apply(params, h, c, method="log_prob"))
    one = hidden_of(1, 1)
    nats = np.asarray(log_prob(jnp.broadcast_to(one, (1, every.shape[1], WIDTH)), every), np.float64)[0]
    np.testing.assert_allclose(np.exp(nats).sum(), 1.0, rtol=1e-5)
    n = 20_000
    hidden = jnp.broadcast_to(one, (n, 1, WIDTH))
    content, score = sampled(head, params, hidden, keyed(jax.random.key(4), n, 1))
    np.testing.assert_allclose(score, log_prob(hidden, content), atol=1e-4)
    same = np.asarray(content)[:, 0].reshape(n, 1, -1) == np.asarray(every)[0].reshape(1, every.shape[1], -1)
    counts, expected = same.all(-1).sum(0), n * np.exp(nats)
    chi_square = np.sum((counts - expected) ** 2 / expected)
    freedom = len(nats) - 1  # five deviations of the chi-square distribution
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)
    greedy, _ = sampled(head, params, one, keyed(jax.random.key(4), 1, 1), temperature=0.0)
    if not slot.shape:
        assert greedy[0, 0] == np.argmax(nats)
