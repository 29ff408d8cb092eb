"""Gradients through the bottlenecks, statistics of use, revival, and training on digits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import TRAINED, digits, tiny
from parameters import noisy

from vargen.config import part
from vargen.tokenizers import usage
from vargen.tokenizers.distances import nearest


@pytest.mark.slow  # in another way: test_table_of_quantisers.py
@pytest.mark.parametrize("name", ["vq", "multiscale_vq", "pyramid_vq"])
def test_gradients_pass_straight_through(name):
    t = tiny(name)
    params = jax.jit(t.init)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1))
    weight = jax.random.normal(jax.random.key(2), (2, 4, 4, t.channels))

    def through(params):
        return jnp.sum(weight * t.bottleneck(params, t.init_stats(), images, None)[0])

    def around(params):
        latents = t.codec.encode(params, images)
        if name != "multiscale_vq":
            latents = latents / jnp.linalg.norm(latents, axis=-1, keepdims=True)
        return jnp.sum(weight * latents)

    found, expected = jax.jit(lambda p: (jax.grad(through)(p), jax.grad(around)(p)))(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found["encoder"], expected["encoder"]
    )
    assert all(not np.any(g) for g in jax.tree.leaves(found["quantizer"]))


@pytest.mark.parametrize("name", ["vq", "multiscale_vq", "pyramid_vq"])
def test_training_and_encoding_agree(name):
    """What the decoder is trained on is what the codes decode to."""
    t = tiny(name)
    params = jax.jit(t.init)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1))
    latents, again = jax.jit(
        lambda p: (
            t.bottleneck(p, t.init_stats(), images, None)[0],
            t.latents(p["quantizer"], t.encode(p, images)),
        )
    )(params)
    np.testing.assert_allclose(latents, again, atol=1e-5)


def test_multiscale_levels_refine():
    """absorb level by level is `latents`; every level is chosen on what the ones before it left."""
    t = tiny("multiscale_vq")

    @jax.jit
    def run(key):
        params = t.init_quantizer(key)
        params = {name: box.value for name, box in params.items()}
        latents = jax.random.normal(key, (2, 4, 4, t.channels))
        codes, f_hat = t.quantise(params, latents)
        again, chosen = t.start(2), []
        for level, level_codes in enumerate(t.split(codes)):
            rest = t.resample(latents - again, level)
            chosen.append(
                nearest(rest.reshape(-1, t.channels), params["codebook"]).reshape(level_codes.shape)
            )
            again = t.absorb(params, again, level_codes, level)
        return codes, jnp.concatenate(chosen, axis=1), f_hat, again, t.latents(params, codes)

    codes, chosen, f_hat, again, latents = run(jax.random.key(0))
    np.testing.assert_array_equal(chosen, codes)
    np.testing.assert_allclose(again, f_hat, atol=1e-5)
    np.testing.assert_allclose(latents, f_hat, atol=1e-5)


def run(t, steps, rate=3e-3, codebook_scale=1.0):
    """Parameters after a training on digits (jittable), the metrics of every step, and the codes of the images."""
    images, optimizer = jnp.asarray(digits()), optax.adam(rate)
    params, stats = t.init(jax.random.key(0)), t.init_stats()
    if "codebook" in params["quantizer"]:
        params["quantizer"]["codebook"] *= codebook_scale

    def step(carry, i):
        params, stats, state = carry
        key = jax.random.fold_in(jax.random.key(1), i)
        batch = images[jax.random.randint(key, (32,), 0, len(images))]
        grad = jax.value_and_grad(t.loss, has_aux=True)
        (_, (stats, metrics, _)), gradient = grad(params, stats, batch, key, i, dict(l2=1.0))
        updates, state = optimizer.update(gradient, state)
        params, stats = t.revive(optax.apply_updates(params, updates), stats, batch, key, i + 1, steps)
        return (params, stats, state), metrics

    carry, metrics = jax.lax.scan(step, (params, stats, optimizer.init(params)), jnp.arange(steps))
    return carry[0], metrics, t.encode(carry[0], images)


def train(name, codebook_scale=1.0, **options):
    """The tokenizer, and what 100 steps make of it."""
    t = tiny(name, **options)
    return t, *jax.jit(lambda: run(t, 100, codebook_scale=codebook_scale))()


QUICK = ("multiscale_vq",)


# The others' training is of the same quantisers and parts.
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in TRAINED],
)
def test_learns_digits(name):
    images = digits()
    t, params, metrics, content = train(name)
    assert np.isfinite(metrics["loss"]).all()
    if name in ("diffusion", "looking"):  # of noise; the l2 of the images that it implies is the noisiest's
        assert metrics["weighted_l2"][-10:].mean() < 0.8 * metrics["weighted_l2"][:5].mean()
    else:
        assert metrics["l2"][-10:].mean() < 0.5 * metrics["l2"][:5].mean()
        assert metrics["l2"][-10:].mean() < 0.8 * np.var(images)  # better than the mean image, in part
    if name == "kl":
        scaled = t.sample_moments(t.moments(params, jnp.asarray(images)), jax.random.key(3))
        assert 0.7 < np.std(scaled) < 1.4
        assert set(t.init_stats()) == {"variance", "updates"}


@pytest.mark.slow
def test_revival_mends_a_collapse():
    """Codes far smaller than the latents: a few win everything, and gradients alone bring no other back."""
    options = dict(codebook_scale=0.01, vocab=128)
    collapsed, revived = (
        len(np.unique(train("multiscale_vq", revive_every=every, **options)[3])) for every in (0, 5)
    )
    assert revived > 2 * collapsed and revived > 64, (collapsed, revived)  # measured: 24 and 75 of 128


@pytest.mark.slow
def test_a_level_of_one_slot_lives_where_the_latents_are_centred():
    """The digits' recipe, hurried: without centring, the mean runs off and the first level has one code for it."""
    t = tiny("multiscale_vq", codebook_weight=0.1, beta=0.02, entropy_weight=0.1)

    @jax.jit
    def trained(weight):  # compiled once for both
        _, metrics, codes = run(dataclasses.replace(t, centre_weight=weight), 300, rate=0.02)
        return codes, metrics["centre"][-1]

    def first_level(weight):
        codes, centre = trained(weight)
        found = usage.statistics(usage.count(np.asarray(codes), t.grid.level_sizes, t.vocab))
        return *usage.by_level(found)[1], float(centre)

    # Measured with three seeds: 26 codes of 32 and more in even use, the mean's square below 0.2; 1 code, above 47.
    (use, perplexity, centre), loose = first_level(t.centre_weight), first_level(0.0)
    assert use > 0.75 and perplexity > 16 and centre < 1, (use, perplexity, centre)
    assert loose[1] < 2 and loose[2] > 10, loose


def test_revival_waits_for_its_turn():
    t = tiny("vq", revive_every=5, revive_until=0.5)
    params, stats = jax.jit(t.init)(jax.random.key(0)), t.init_stats()
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1))
    run = jax.jit(lambda step: t.revive(params, stats, images, jax.random.key(2), step, 10))
    for step in (4, 6, 10):
        same, _ = run(step)
        np.testing.assert_array_equal(same["quantizer"]["codebook"], params["quantizer"]["codebook"])
    other, after = run(5)
    assert np.any(other["quantizer"]["codebook"] != params["quantizer"]["codebook"])
    assert jax.tree.structure(after) == jax.tree.structure(stats)
    assert t.revive(params, stats, None, jax.random.key(2), 5, 10) == (params, stats)


@pytest.mark.slow
def test_levels_that_are_pictures():
    """Latents of the picture at each size, by cubic interpolation with PyTorch's a = -0.75; the last is decoded."""
    encoder = part("conv", width=32, multipliers=(1, 1), blocks=1)
    t = tiny("pyramid_kl", 8, levels=(2, 4), of="pictures", encoder=encoder)
    params = noisy(t.init, scale=0.1)
    params["quantizer"]["scale"] = jnp.full_like(params["quantizer"]["scale"], 2 * t.scale)
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1), minval=-1)
    # At half the size every pixel lies in the middle of four: -0.09375, 0.59375 on both sides; borders are repeated.
    half = np.zeros((4, 8))
    for i in range(4):
        for tap, share in zip(
            range(2 * i - 1, 2 * i + 3), (-0.09375, 0.59375, 0.59375, -0.09375), strict=True
        ):
            half[i, min(max(tap, 0), 7)] += share
    small = np.einsum("ih,jw,bhwc->bijc", half, half, images)

    @jax.jit
    def latents(images):
        return t.scale * 2 * t.codec.encode(params, images)[..., : t.channels].reshape(2, -1, t.channels)

    found = jax.jit(t.encode)(params, images)
    expected = np.concatenate([latents(small), latents(images)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(t.decode(params, found), t.decode(params, found.at[:, :4].set(0)), atol=1e-6)
    stored = jax.jit(t.stored)(params, images)
    drawn, _ = t.drawn(params["quantizer"], stored, jax.random.key(2))
    assert stored.shape == (2, 20, 8) and drawn.shape == (2, 20, 4)
    np.testing.assert_allclose(stored[..., :4], found, atol=1e-5)


def test_codes_are_drawn_in_training():
    """By the softmax of unit vectors' products over the temperature, of 20,000 within five deviations."""
    t = tiny("vq", channels=2, vocab=4, temperature=0.5)
    codes = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    vectors = jnp.tile(jnp.array([[0.6, 0.8]]), (20_000, 1))
    drawn = np.bincount(t.chosen(vectors, codes, jax.random.key(0)), minlength=4) / 20_000
    expected = np.exp(np.array([0.6, 0.8, -0.6, -0.8]) / 0.5)
    expected /= expected.sum()
    np.testing.assert_array_less(np.abs(drawn - expected), 5 * np.sqrt(expected / 20_000))
    nearest = tiny("vq", channels=2, vocab=4).chosen(vectors[:3], codes, jax.random.key(0))
    np.testing.assert_array_equal(nearest, 1)
