"""The order that the model decides while decoding: masks, counts, noise; the decoding itself is in test_engine."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import labels_for, make

from vargen.draws import keyed
from vargen.heads import Sample
from vargen.orders import Confidence, Fixed, Order
from vargen.orders.schedules import COUNTS, CURVES, share
from vargen.samplers import Sampling, decode
from vargen.slots import Grid

GRID = Grid(((4, 4),))


def test_counts():
    """MaskGIL's as its code prints them; MaskGIT's of the run in which float32 has 7 slots left and not 8."""
    assert COUNTS["shares"]("arccos", 256, 8).tolist() == [1, 18, 26, 32, 38, 43, 48, 50]
    assert COUNTS["shares"]("arccos", 256, 12).tolist() == [1, 9, 13, 17, 19, 22, 24, 26, 28, 30, 32, 35]
    assert COUNTS["shares"]("cosine", 256, 8).tolist() == [1, 12, 22, 32, 41, 47, 51, 50]
    assert COUNTS["left"]("cosine", 16, 6).tolist() == [1, 2, 2, 4, 3, 4]
    for curve in CURVES:
        for n, steps in ((1, 1), (5, 5), (16, 7), (256, 60)):
            for skipped in {0, min(2, steps - 1)}:
                left, shares = (COUNTS[name](curve, n, steps, skipped) for name in ("left", "shares"))
                assert len(left) == len(shares) == steps - skipped and left.sum() == shares.sum() == n
                assert left.min() >= 0 and left[-1] >= 1 and shares.min() >= 1
        assert (COUNTS["shares"](curve, 64, 64) == 1).all()


@pytest.mark.parametrize("curve", CURVES)
def test_curves(curve):
    """From all to nothing, falling; traced ones are the known ones."""
    ratios = np.linspace(0, 1, 33)
    found = share(curve, ratios, 256)
    assert found[0] == pytest.approx(1 - (curve == "exp") / 256) and found[-1] == np.float32(1e-6)
    assert (np.diff(found) <= 0).all() and (found[1:-1] < 1).all()
    traced = jax.jit(lambda r: share(curve, r, 256, jnp))(jnp.asarray(ratios, jnp.float32))
    np.testing.assert_allclose(traced, found, atol=1e-6)


@pytest.mark.parametrize("masks, extra", [("counted", 0.5 / 16), ("rounded", 0.0), ("independent", 0.0)])
def test_masks(masks, extra):
    """The mean of cos(pi r / 2) is 2/pi; a count that is rounded up has half a slot more. Any slot may be masked."""
    order = Confidence(GRID, 8, masks=masks).training(jax.random.key(0), np.zeros((4000, 16)))
    np.testing.assert_array_equal(np.sort(order.slots), np.tile(np.arange(16), (4000, 1)))
    assert (np.diff(order.steps) >= 0).all()
    masked = np.zeros((4000, 16))
    np.put_along_axis(masked, np.asarray(order.slots), np.asarray(order.steps), axis=1)
    assert abs(masked.mean() - (2 / np.pi + extra)) < 0.012
    assert np.ptp(masked.mean(axis=0)) < 0.06
    # Where every slot has a chance of its own, a few pictures have none masked.
    assert (masked.sum(axis=1) >= 1).all() == (masks != "independent")


def test_order_of_decoding():
    given = np.isin(np.arange(16), (3, 7, 8))
    ordering = Confidence(GRID, 6, skipped=2)
    order = ordering.decoding(None, 2, 0, given)
    assert order.slots[:3].tolist() == [3, 7, 8] and order.given == 3
    assert order.sizes.tolist() == [3, *COUNTS["left"]("cosine", 13, 6, 2)]
    np.testing.assert_allclose(ordering.amounts(order)[1:], 4.5 * (1 - np.arange(3, 7) / 6), atol=1e-6)
    whole = ordering.decoding(None, 2)
    np.testing.assert_allclose(ordering.amounts(whole), 4.5 * (1 - np.arange(1, 7) / 6), atol=1e-6)
    before = dataclasses.replace(ordering, anneal="before", noise=2.0)
    np.testing.assert_allclose(before.amounts(whole), 2 * (1 - np.arange(6) / 5), atol=1e-6)
    # With fewer slots than steps there are as many.
    shares = dataclasses.replace(ordering, counts="shares")
    assert shares.decoding(None, 2, 0, np.arange(16) > 2).sizes.tolist() == [13, 1, 1, 1]
    assert ordering.decoding(None, 2, 0, np.ones(16, bool)).sizes.tolist() == [16]
    for steps, words in ((17, "expected 1 to 16"), (2, "expected more than 2, which are left out")):
        with pytest.raises(ValueError, match=words):
            ordering.decoding(None, 2, steps, given)


def test_worth():
    """Log-probability plus noise, fresh in every step and apart from that of the codes."""
    ordering, draws = Confidence(GRID, 4, noise=3.0), keyed(jax.random.key(0), 500, 16)
    order, score = ordering.decoding(None, 500), jnp.zeros((500, 16))
    worth = [np.asarray(ordering.revise(order, s, None, Sample(None, score), draws.of(s))) for s in range(4)]
    assert (worth[3] == 0).all()
    noise = np.stack([worth[s].ravel() / (3 * (1 - (s + 1) / 4)) for s in range(3)])
    # Gumbel's mean and deviation.
    np.testing.assert_allclose(noise.mean(axis=1), np.euler_gamma, atol=0.05)
    np.testing.assert_allclose(noise.std(axis=1), np.pi / 6**0.5, atol=0.05)
    codes = np.asarray(draws.of(0).choose(jnp.zeros((500, 16, 64)))).ravel()
    assert np.abs(np.corrcoef(np.vstack([noise, codes])) - np.eye(4)).max() < 0.04


def test_worth_by_logits():
    """TiTok's, written out: logit / t + a g, and codes at a temperature of t a; a falls to 0, t to its last number."""
    ordering = Confidence(GRID, 4, noise=3.0, by="logit", softness=(1.3, 0.5))
    order, draws = ordering.decoding(None, 2), keyed(jax.random.key(0), 2, 16)
    logit = jax.random.normal(jax.random.key(1), (2, 16))
    for s, left in enumerate((0.75, 0.5, 0.25, 0.0)):
        soft, noise = 0.5 + 0.8 * left, 3.0 * left
        np.testing.assert_allclose(ordering.temperature(order, s), soft * noise, rtol=1e-5)
        found = ordering.revise(order, s, None, Sample(None, 0 * logit, logit=logit), draws.of(s))
        np.testing.assert_allclose(found, logit / soft + noise * draws.of(s).gumbel(), rtol=1e-5, atol=1e-6)
    assert Confidence(GRID, 4).temperature(order, 0) is None


@pytest.mark.slow
def test_greedy_decoding_is_the_same_for_every_key():
    """At temperature 0 without noise; its order is one of confidence, which differs from picture to picture."""
    _, generator, params, tokenizer_params = make("maskgit")
    generator = dataclasses.replace(
        generator, ordering=dataclasses.replace(generator.ordering, noise=0.0, steps=16)
    )
    sampling = Sampling.make(temperature=0.0)
    run = jax.jit(functools.partial(decode, generator, scored=True))
    args = (params, tokenizer_params["quantizer"], labels_for(generator, 3))
    first, second = (run(*args, jax.random.key(seed), sampling) for seed in (0, 1))
    np.testing.assert_array_equal(first.content, second.content)
    np.testing.assert_array_equal(first.order.slots, second.order.slots)
    np.testing.assert_array_equal(np.sort(first.order.slots), np.tile(np.arange(16), (3, 1)))
    assert len(np.unique(first.order.slots, axis=0)) == 3
    # Its first slot is the surest of all when nothing is known.
    blank = Order(jnp.tile(jnp.arange(16), (3, 1)), jnp.ones((3, 16), jnp.int32))
    hidden, _ = generator.hidden(*args[:2], jnp.zeros((3, 16), jnp.int32), args[2], blank)
    logits = generator.head.apply(generator.of_head(params), hidden, method="codes")
    best = np.asarray(jax.nn.log_softmax(logits).max(axis=-1))
    slots = np.asarray(first.order.slots)[:, 0]
    np.testing.assert_array_equal(best.argmax(axis=1), slots)
    np.testing.assert_allclose(np.asarray(first.score)[np.arange(3), slots], best.max(axis=1), rtol=1e-4)


@pytest.mark.parametrize(
    "counts", [pytest.param("slots", marks=pytest.mark.slow), "pictures", "all", "known"]
)
def test_what_the_loss_counts(counts):
    """Each picture as much as another, however much of it is masked; each masked slot; every slot; known ones less."""
    _, generator, params, tokenizer_params = make("maskgit")
    own = dict(known_weight=0.1) if counts == "known" else dict(counts=counts)
    feed = generator.feed.clone(**(dict(counts="slots") | own))
    generator = dataclasses.replace(generator, feed=feed)
    content = jax.random.randint(jax.random.key(1), (6, 16), 0, 16)
    order, quantizer = generator.ordering.training(jax.random.key(2), content), tokenizer_params["quantizer"]
    generator = dataclasses.replace(generator, ordering=Fixed(generator.ordering.grid, order))
    labels = labels_for(generator, 6)
    found, _ = generator.loss(params, quantizer, content, labels, jax.random.key(3), train=False)
    hidden, _ = generator.hidden(params, quantizer, content, labels, order)
    logits = np.asarray(generator.head.apply(generator.of_head(params), hidden), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = -0.9 * np.take_along_axis(log_p, np.asarray(content)[..., None], axis=-1)[..., 0]
    nats -= 0.1 * log_p.mean(axis=-1)
    masked = np.zeros((6, 16), bool)
    np.put_along_axis(masked, np.asarray(order.slots), np.asarray(order.steps) > 0, axis=1)
    expected = {
        "slots": nats[masked].mean(),
        "pictures": np.mean([row[m].mean() for row, m in zip(nats, masked, strict=True)]),
        "all": nats.mean(),
        "known": np.average(nats, weights=np.where(masked, 1.0, 0.1)),
    }
    np.testing.assert_allclose(found, expected[counts], rtol=1e-5)
    assert len({round(x, 4) for x in expected.values()}) == 4


def test_the_noise_of_the_choice_is_no_draw_of_the_contents():
    """It is none of those that the codes of a slot are drawn by, whichever their number."""
    draws = keyed(jax.random.key(0), 2, 3)
    drawn = [
        jax.vmap(jax.vmap(jax.random.gumbel))(keys)
        for keys in (draws.keys, *(draws.of(i).keys for i in range(5)))
    ]
    assert all(np.abs(draws.gumbel() - x).min() > 1e-6 for x in drawn)
