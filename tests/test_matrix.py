"""Every order with every feed, head and mixer either trains and samples, or refuses in one line what doesn't fit.

All of it is slow; a part of it that a hash draws runs with the other tests.
"""

import functools
import itertools
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parameters import plain
from systems import labels_for

from vargen import axes, combinations, models
from vargen.content import put
from vargen.samplers import Sampling, decode

ORDERS, FEEDS, HEADS, MIXERS = (tuple(axes.PARTS[axis]) for axis in combinations.AXES)
STEPS = 10


def drawn(names, one_of):
    """Whether a hash draws names, about one of so many."""
    return zlib.crc32(" ".join(names).encode()) % one_of == 0


def some_drawn(combos, one_of):
    """Parameters of a test, all but the drawn ones slow."""
    return [pytest.param(*c, marks=[] if drawn(c, one_of) else pytest.mark.slow) for c in combos]


def fits(order, feed, head, mixer):
    """The tiny config of a combination that builds; None where one line refuses it, and says what would fit."""
    c, line = combinations.find(order, feed, head, mixer)
    if not line:
        return c
    assert "\n" not in line and len(line) < 300, line
    assert re.search(r"\b(expected|needs?|must)\b", line), line
    assert len(combinations.named(line, c)) >= 2, line
    return None


def runs(order, feed):
    """Configs in which every head and every mixer that fits an order and a feed stands at least once."""
    heads = [head for head in HEADS if fits(order, feed, head, "attention")]
    if not heads:
        return
    mixers = [mixer for mixer in MIXERS if fits(order, feed, heads[0], mixer)]
    shift = zlib.crc32(f"{order} {feed}".encode())  # else a head would meet the same mixers everywhere
    for i in range(max(len(heads), len(mixers))):
        head, mixer = heads[i % len(heads)], mixers[(i + shift) % len(mixers)]
        if c := fits(order, feed, head, mixer):
            yield c
        else:
            yield fits(order, feed, head, "attention")
            yield fits(order, feed, heads[0], mixer)


def train_and_sample(c):
    """Ten updates by Adam with all that training has, then samples with guidance."""
    tokenizer = combinations.tokenizer(c.tokenizer.name)
    generator = models.build_generator(c, tokenizer)
    params, quantizer = jax.tree.map(jnp.asarray, (plain(generator.init), plain(tokenizer.init)["quantizer"]))
    slot, rng, optimizer = tokenizer.slot, np.random.default_rng(0), optax.adam(1e-3)
    shape = (4, tokenizer.grid.size, *slot.shape)
    content = jnp.asarray(
        rng.integers(slot.vocab, size=shape) if slot.vocab else rng.normal(size=shape), slot.dtype
    )
    labels = labels_for(generator, 4)
    looks_back_alone(c.name, generator, params, quantizer, content, labels)

    @jax.jit
    def run(params, key):
        def step(state, i):
            def loss(params):
                k = jax.random.fold_in(key, i)
                return generator.loss(params, quantizer, content, labels, k, True, i / STEPS)[0]

            value, grad = jax.value_and_grad(loss)(state[0])
            updates, after = optimizer.update(grad, state[1])
            return (optax.apply_updates(state[0], updates), after), (value, optax.global_norm(grad))

        (params, _), seen = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(STEPS))
        decoding = decode(generator, params, quantizer, labels, key, Sampling.make(guidance=1.5))
        return seen, generator.picture(decoding.content, decoding.order)[0]

    (losses, norms), samples = jax.device_get(run(params, jax.random.key(0)))
    assert np.isfinite(losses).all() and np.isfinite(norms).all() and norms.min() > 0, c.name
    assert samples.shape == shape and np.isfinite(samples).all(), c.name
    assert not slot.vocab or (samples.min() >= 0 and samples.max() < slot.vocab), c.name
    assert np.any(samples[0] != samples[1]), c.name


def looks_back_alone(name, generator, params, quantizer, content, labels):
    """In training's order at its start, what is drawn in the last step changes no hidden vector.

    Not asked of feeds whose rows show what they predict: drafts, codes of a slot told one after another, and levels
    that are drawn again in part.
    """
    feed, ordering = generator.feed, generator.ordering
    if feed.drafts or feed.told or ordering.proposes == "level":
        return

    @jax.jit
    def hidden(change):
        whole, _ = generator.joined(content, labels)
        order = ordering.training(jax.random.key(3), whole, jnp.float32(0))
        shape = (len(content), order.slots.shape[-1])
        slots, steps = (jnp.broadcast_to(x, shape) for x in (order.slots, order.steps))
        last = steps % 2 == 1 if ordering.masked else steps == steps.max()
        last = put(jnp.zeros((len(content), generator.sequence.grid.size), bool), slots, last)

        def changed(x):
            other = x + change if x.dtype == jnp.float32 else (x + change) % 4
            return jnp.where(last.reshape(last.shape + (1,) * (x.ndim - 2)), other, x)

        return generator.hidden(params, quantizer, jax.tree.map(changed, whole), labels, order)[0]

    np.testing.assert_allclose(hidden(0), hidden(1), rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("one_of", [400, pytest.param(40, marks=pytest.mark.slow)])
def test_builds_or_says_why_not(one_of):
    """Some of all combinations; those of three with any fourth are among `test_trains_and_samples`."""
    chosen = [c for c in itertools.product(ORDERS, FEEDS, HEADS, MIXERS) if drawn(c, one_of)]
    assert len(chosen) > 8000 / one_of
    for combination in chosen:
        fits(*combination)


@pytest.mark.parametrize("order, feed", some_drawn(itertools.product(ORDERS, FEEDS), 10))
def test_trains_and_samples(order, feed, request):
    """Each head once, each mixer once; of what is drawn for every run of the tests one of these."""
    for c in runs(order, feed):
        train_and_sample(c)
        if not request.node.get_closest_marker("slow"):
            return


@functools.cache
def met():
    """The pairs of a head and a mixer that `test_trains_and_samples` has."""
    pairs = itertools.product(ORDERS, FEEDS)
    return {(c.head.name, c.mixer.name) for order, feed in pairs for c in runs(order, feed)}


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_meets_every_mixer(head):
    """A head and each mixer that it hasn't met, in the first order and feed that both fit."""
    for mixer in (mixer for mixer in MIXERS if (head, mixer) not in met()):
        combos = ((order, feed, head, mixer) for order, feed in itertools.product(ORDERS, FEEDS))
        if combo := next((c for c in combos if combinations.builds(*c)), None):
            train_and_sample(combinations.find(*combo)[0])
