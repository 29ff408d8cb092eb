"""The diffusion of bits against all paths of it written out in float64, and a training that learns a known law."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from parameters import normal
from systems import bits

from vargen import models
from vargen.config import part
from vargen.draws import Recorded, keyed
from vargen.heads import BernoulliDiffusion
from vargen.heads.bernoulli_diffusion import Flips
from vargen.samplers import Sampling, decode

T = 5
SETTINGS = types.SimpleNamespace(temperature=1.0)


def chain(kept):
    """q(z_t = j | z_(t-1) = i) of each step, float64 [T, 2, 2], of which the products keep k_t."""
    each = kept[1:] / kept[:-1]
    return np.stack([a * np.eye(2) + (1 - a) / 2 for a in each])


def after(kept, start, time, end, law):
    """P(z_s = 0, 1 | z_t = end) of z_0 by `law`, by the sum over every path of T bits."""
    steps, found = chain(kept), np.zeros(2)
    for path in np.ndindex(*(2,) * (time + 1)):
        if path[time] == end:
            weight = law[path[0]] * np.prod([steps[i][path[i], path[i + 1]] for i in range(time)])
            found[path[start]] += weight
    return found / found.sum()


def uncertain(kept, time, start, flipped, posterior):
    """P(z_s is not z_t) where z_0 is not z_t with the probability `flipped`."""
    if posterior == "mixture" or start == 0:
        of = [after(kept, start, time, 1, np.eye(2)[1 ^ f])[0] for f in (0, 1)]
        return (1 - flipped) * of[0] + flipped * of[1]
    steps = np.linalg.multi_dot([np.eye(2), *chain(kept)[start:time], np.eye(2)])
    product = (kept[start] * np.array([flipped, 1 - flipped]) + (1 - kept[start]) / 2) * steps[:, 1]
    return (product / product.sum())[0]


@pytest.mark.parametrize("posterior", ["mixture", "product"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_every_path_of_a_bit(schedule, posterior):
    """q(z_s | z_t, z_0) of a certain z_0; of an uncertain one its mean, or the paper's product."""
    head = BernoulliDiffusion(1, train_steps=T, schedule=schedule, posterior=posterior)
    kept = head.kept
    assert kept[0] == 1 and abs(kept[T]) < 1e-15 and np.all(np.diff(kept) < 0)
    for time in range(1, T + 1):
        for start in range(time):
            of = [after(kept, start, time, 1, np.eye(2)[1 ^ flipped])[0] for flipped in (0, 1)]  # z_t is 1
            for flipped in (0, 1):
                found = head.flip(jnp.float32(flipped), time, start)
                np.testing.assert_allclose(found, of[flipped], atol=1e-6)
            np.testing.assert_allclose(
                head.flip(jnp.float32(0.3), time, start),
                uncertain(kept, time, start, 0.3, posterior),
                atol=1e-6,
            )


@pytest.mark.parametrize("posterior, weights", [("mixture", "even"), ("product", "falling")])
def test_terms_in_float64(posterior, weights):
    """The flips' cross-entropy and the bound of every bit, the last of which is that; and the weights of times."""
    head = BernoulliDiffusion(3, train_steps=T, bound_weight=0.4, posterior=posterior, weights=weights)
    hidden = normal(0, 2, T, 3)
    params = {
        "params": {"out": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}}
    }  # hidden vectors are the logits
    rng = np.random.default_rng(0)
    target = Flips(rng.integers(0, 2, (2, T, 3)).astype(np.float32), np.tile(np.arange(1, T + 1), (2, 1)))
    nats, bound = head.apply(params, hidden, target, method="terms")
    logits, kept, expected = np.float64(hidden), head.kept, np.zeros((2, 2, T, 3))
    guess = 1 / (1 + np.exp(-logits))
    for b, n, c in np.ndindex(2, T, 3):
        time, flipped, p = n + 1, int(target.flipped[b, n, c]), guess[b, n, c]
        expected[0, b, n, c] = -np.log(p if flipped else 1 - p)
        if time == 1:
            expected[1, b, n, c] = expected[0, b, n, c]
            continue
        q = after(kept, time - 1, time, 1, np.eye(2)[1 ^ flipped])
        likely = uncertain(kept, time, time - 1, p, posterior)
        expected[1, b, n, c] = np.sum(q * np.log(q / np.array([likely, 1 - likely])))
    np.testing.assert_allclose([nats, bound], expected, rtol=1e-4, atol=1e-5)
    weight = rng.random((2, T)).astype(np.float32) + 1
    loss, metrics = head.apply(params, hidden, target, None, weight, method="loss")
    each = expected.mean(-1)
    of_time = 1 - np.arange(T) / T if weights == "falling" else 1
    total = np.sum(weight * of_time * (each[0] + 0.4 * each[1])) / weight.sum()
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    np.testing.assert_allclose(
        [metrics["nats"], metrics["bound"]], np.average(each, (1, 2), np.stack([weight] * 2)), rtol=1e-4
    )
    far = head.apply(params, 200 * hidden, target, method="terms")
    assert np.isfinite(far).all()


def test_noise_of_training():
    """Each step of an example has a time of its own; bits are flipped as often as it says."""
    head = BernoulliDiffusion(8, train_steps=10)
    steps, content = (
        np.array([0, 2, 1, 1, 0, 2]),
        jax.random.bernoulli(jax.random.key(1), 0.3, (2000, 6, 8)).astype(int),
    )
    params = nn.meta.unbox(head.init(jax.random.key(0), jnp.zeros((1, 1, 8))))
    found = head.apply(params, content, steps, method="noised", rngs={"head": jax.random.key(2)})
    times, level = np.asarray(found.target.times), np.asarray(found.level)
    np.testing.assert_array_equal(times, times[:, [0, 1, 2, 2, 0, 1]])
    np.testing.assert_allclose(level, 100 * times, rtol=1e-6)
    assert times.min() == 1 and times.max() == 10 and abs(times.mean() - 5.5) < 0.15
    np.testing.assert_array_equal(found.content ^ content, found.target.flipped)
    for time in range(1, 11):
        share = np.mean(found.target.flipped[times == time])
        assert abs(share - time / 20) < 0.02, (time, share)
    np.testing.assert_array_equal(
        BernoulliDiffusion(1, sample_steps=4, train_steps=10).times, [10, 7, 4, 1, 0]
    )
    np.testing.assert_allclose(head.noise_levels[:2], [1000, 900])


@pytest.mark.parametrize("passes", [1, 2, T])
def test_who_knows_the_bits_draws_them(passes):
    """Where the flips are predicted for sure, the contents come out; where nothing is known, even bits."""
    head = BernoulliDiffusion(2, sample_steps=passes, train_steps=T)
    params = {"params": {"out": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}}
    bound, content = head.bind(params), jax.random.bernoulli(jax.random.key(3), 0.5, (500, 4, 2)).astype(int)
    draft = bound.start(keyed(jax.random.key(0), 500, 4), SETTINGS)
    assert draft.content.dtype == jnp.int32 and abs(np.mean(draft.content) - 0.5) < 0.03
    for at in range(passes):
        flips = draft.content != content
        draft = bound.refine(jnp.where(flips, 60.0, -60.0), draft, at, SETTINGS)
    np.testing.assert_array_equal(draft.content, content)
    blind = bound.start(keyed(jax.random.key(0), 500, 4), SETTINGS)
    for at in range(passes - 1):
        blind = bound.refine(jnp.zeros((500, 4, 2)), blind, at, SETTINGS)
    assert abs(np.mean(blind.content) - 0.5) < 0.03


@pytest.mark.parametrize("passes", [3, T])
def test_whoever_knows_the_law_draws_by_it(passes):
    """Of a bit with P(1) = 0.8, by Bayes' probability of its flip at each pass: after every pass but the last, which is
    no draw, it is 1 as often as its own law says of that time."""
    head, n = BernoulliDiffusion(1, sample_steps=passes, train_steps=T), 40_000
    params = {"params": {"out": {"kernel": jnp.eye(1), "bias": jnp.zeros(1)}}}
    bound, kept = head.bind(params), head.kept
    draft = bound.start(Recorded(normals=jax.random.normal(jax.random.key(5), (n, 1, passes, 1))), SETTINGS)
    one = lambda time: kept[time] * 0.8 + (1 - kept[time]) / 2  # noqa: E731
    for at, (time, then) in enumerate(itertools.pairwise(head.times[:-1])):
        changed = (1 - kept[time]) / 2
        flips = np.array([0.8 * changed / (1 - one(time)), 0.2 * changed / one(time)])
        logits = np.log(flips / (1 - flips))[np.asarray(draft.content)]
        draft = bound.refine(jnp.asarray(logits, jnp.float32), draft, at, SETTINGS)
        assert abs(np.mean(draft.content) - one(then)) < 5 * 0.5 / np.sqrt(n), (time, then)
    assert one(then) > 0.7


@pytest.mark.slow
def test_a_short_training_learns_the_law():
    """Two pictures, one of each class: samples show them, through the whole generator."""
    c = bits()
    c.order = part("cells", count=(1, 1))
    c.head.update(dict(sample_steps=8, train_steps=32))
    tokenizer = models.build_tokenizer(c)
    generator, optimizer = models.build_generator(c, tokenizer), optax.adam(1e-2)
    patterns = np.stack([[[0, 1, 1, 0]] * 16, [[1, 0, 1, 1]] * 16])

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            labels = jax.random.randint(key, (16,), 0, 2)
            grad = jax.value_and_grad(
                lambda p: generator.loss(p, {}, jnp.asarray(patterns)[labels], labels, key)[0]
            )
            loss, gradient = grad(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), loss

        keys = jax.random.split(jax.random.key(1), 200)
        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), keys)
        drawn = decode(generator, params, {}, jnp.arange(8) % 2, jax.random.key(2), Sampling.make())
        return losses, drawn.content

    losses, content = train(generator.init(jax.random.key(0)))
    assert losses[-20:].mean() < 0.3 * losses[:5].mean(), (losses[:5].mean(), losses[-20:].mean())
    right = np.mean(np.asarray(content) == patterns[np.arange(8) % 2])
    assert right > 0.95, right


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(tokenizer=part("lfq", channels=6, groups=2)),
            "head bernoulli_diffusion: expected a tokenizer of bits",
        ),
        (
            dict(head=part("bernoulli_diffusion", sample_steps=9, train_steps=8)),
            "at most train_steps, 8, found 9",
        ),
    ],
)
def test_refused(change, message):
    c = bits()
    for axis, value in change.items():
        c[axis] = value
    c.tokenizer.encoder = bits().tokenizer.encoder
    with pytest.raises(ValueError, match=message):
        models.build_generator(c, models.build_tokenizer(c))
