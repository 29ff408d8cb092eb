"""Every order with every feed, head and mixer either trains and samples, or refuses in one line what doesn't fit.

Which combinations build the parts' own checks say. Of these so many train that each pair and each triple of parts that
stands in any of them stands in one that trains: the slow tests, in `SHARDS` parts, of which `-k 3of40` picks the third.
A part that a hash draws runs with the other tests.
"""

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
SHARDS = 40


def drawn(names, one_of):
    """Whether a hash draws names, about one of so many."""
    return zlib.crc32(" ".join(names).encode()) % one_of == 0


def tried(combination):
    """The tiny config of a combination, and "" where it builds, else the line that refuses it and says what fits."""
    c, line = combinations.find(*combination)
    if line:
        assert "\n" not in line and len(line) < 300, line
        assert re.search(r"\b(expected|needs?|must)\b", line), line
        assert len(combinations.named(line, c)) >= 2, line
    return c, line


def advised(line, combination):
    """A combination with the parts that a refusal says would fit."""
    if instead := re.search(r"; the (\w+) (\w+) takes these$", line):
        parts = [instead.groups()]
    else:
        line = re.sub(r"found the \w+ \w+(, \w+ \w+)*", "", line)
        parts = re.findall(r"\bthe (order|feed|head|mixer) (\w+)", line)
        parts += re.findall(r"\b(order|feed|head)\b(?:(?!order|feed|head)[^,;:])*,? such as (\w+)", line)
    wanted = {axis: name for axis, name in reversed(parts) if name in axes.PARTS[axis]}
    return tuple(wanted.get(axis, name) for axis, name in zip(combinations.AXES, combination, strict=True))


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


@pytest.mark.parametrize("one_of", [800, pytest.param(40, marks=pytest.mark.slow)])
def test_builds_or_says_why_not(one_of):
    """Some of all combinations; what a refusal says would fit is tried, and leads to one that builds."""
    chosen = [c for c in itertools.product(ORDERS, FEEDS, HEADS, MIXERS) if drawn(c, one_of)]
    assert len(chosen) > 8000 / one_of
    for combination in chosen:
        said, now = [], combination
        while line := tried(now)[1]:  # of several misfits one line tells one
            said.append(line)
            assert len(said) < 8, (combination, said)
            now = advised(line, now)
        if one_of < 800:  # what is found without building it whole
            assert bool(said) != combinations.builds(*combination), combination


def test_runs_cover_all_pairs_and_triples():
    """Of combinations of any names; a combination that has nothing new doesn't run."""
    some = [c for c in itertools.product("abc", "de", "fgh", "ij") if zlib.crc32("".join(c).encode()) % 3]
    found = combinations.covering(some)
    assert found == combinations.covering(some[::-1]) and {*found} < {*some}
    for several in (2, 3):
        for places in itertools.combinations(range(4), several):
            assert {tuple(c[i] for i in places) for c in found} == {tuple(c[i] for i in places) for c in some}


@pytest.mark.parametrize(
    "order, feed", [pair for pair in itertools.product(ORDERS, FEEDS) if drawn(pair, 20)]
)
def test_drawn_ones_train_and_sample(order, feed):
    """A head and a mixer that fit an order and a feed, where any do."""
    pairs = sorted(itertools.product(HEADS, MIXERS), key=lambda pair: zlib.crc32(" ".join(pair).encode()))
    if pair := next((pair for pair in pairs if combinations.builds(order, feed, *pair)), None):
        train_and_sample(tried((order, feed, *pair))[0])


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS), ids=[f"{i + 1}of{SHARDS}" for i in range(SHARDS)])
def test_trains_and_samples(shard):
    """Every pair and every triple of parts, in some combination."""
    failed = []
    for combination in combinations.covering(combinations.every())[shard::SHARDS]:
        try:
            train_and_sample(tried(combination)[0])
        except Exception as error:  # the others are tried all the same
            failed.append(f"{' '.join(combination)}: {type(error).__name__}: {str(error)[:500]}")
    assert not failed, "\n".join(failed)
