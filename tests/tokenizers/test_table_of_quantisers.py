"""One table of quantisers, each row of which shows the same: shapes, the straight-through gradient by its formula,
codes to values and back, the loss terms in float64, a compiled pass that is the plain one, bfloat16, and a short
training on eight pictures.

What each has alone stands in its own file.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import PARTS, digits, tiny
from systems import some_slow

from vargen import tokenizers
from vargen.config import part

# A part gets a row with the formula of its gradient in `pulled`.
STRAIGHT = "vq multiscale_vq multiscale_product_vq pyramid_vq vq_ema vq_wae rq product_vq qlae".split()
STRAIGHT += "fsq lfq bsq binary".split()
# The decoder isn't told codes alone; all codes have a gradient (its authors': tests/interop); a frozen network's.
CODED = [*STRAIGHT, "binned_kl", "ibq", "teacher_kmeans"]
MEASURED = "vq vq_ema vq_wae product_vq qlae lfq bsq binary".split()  # of one level and one code in depth
KEY = jax.random.key(7)
SLOW = (
    "multiscale_product_vq qlae product_vq pyramid_vq vq_ema lfq".split()
)  # of parts, each as in another row


@functools.cache
def made(name):
    """A tiny tokenizer, its parameters, and pictures float32 [2, 16, 16, 1]."""
    t = tiny(name)
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1)
    return t, jax.jit(t.init)(jax.random.key(0)), images


def begun(t, params):
    """Statistics of training, in which tables that follow have been there before."""
    stats = t.init_stats()
    return dict(stats, quantizer=params["quantizer"]) if "quantizer" in stats else stats


def pulled(name, t, latents):
    """What the gradient of the decoded latents is that of, float64 formulas of the encoder's [B, h, w, C]."""
    if name in ("vq", "pyramid_vq", "bsq"):
        return latents / jnp.linalg.norm(latents, axis=-1, keepdims=True) * (5**-0.5 if name == "bsq" else 1)
    if name == "product_vq":
        parts = latents.reshape(*latents.shape[:-1], 2, 2)
        return (parts / jnp.linalg.norm(parts, axis=-1, keepdims=True)).reshape(latents.shape)
    if name == "fsq":  # levels 4, 3, 3: bounds, and what a step is
        half, offset = np.array([1.5015, 1.001, 1.001]), np.array([0.5, 0, 0])
        return (jnp.tanh(latents + np.arctanh(offset / half)) * half - offset) / np.array([2, 1, 1])
    if name == "binary":
        return jnp.tanh(latents / 2)
    return latents


@pytest.mark.parametrize("name", some_slow(STRAIGHT, SLOW))
def test_the_gradient_goes_straight_through(name):
    t, params, images = made(name)
    weight = jax.random.normal(jax.random.key(2), (2, 4, 4, t.channels))

    def through(params):
        return jnp.sum(weight * t.bottleneck(params, begun(t, params), images, KEY)[0])

    def around(params):
        return jnp.sum(weight * pulled(name, t, t.codec.encode(params, images)))

    found, expected = jax.jit(lambda p: (jax.grad(through)(p), jax.grad(around)(p)))(params)
    scale = max(float(np.abs(g).max()) for g in jax.tree.leaves(expected["encoder"]))
    assert scale > 0.1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * scale),
        found["encoder"],
        expected["encoder"],
    )
    assert all(not np.any(g) for g in jax.tree.leaves(found["quantizer"]))


@pytest.mark.parametrize("name", CODED)
def test_codes_and_values(name):
    """Codes of pictures are decoded as the sum of their vectors; and of codes drawn anew, values give the codes back,
    where no level is of what others left."""
    t, params, images = made(name)
    content = jax.jit(t.encode)(params, images)
    assert content.shape == (2, t.grid.size, *t.slot.shape) and content.dtype == jnp.int32
    vectors = t.vectors(params["quantizer"], content)
    latents = t.latents(params["quantizer"], content)
    assert vectors.shape == (*content.shape, t.channels) and vectors.dtype == latents.dtype == jnp.float32
    if (
        len(t.grid.levels) > 1 or name == "binned_kl"
    ):  # levels are interpolated; bins are scaled: test_product.py
        return
    if t.slot.shape:
        vectors = jnp.sum(vectors, axis=-2)
    np.testing.assert_allclose(vectors.reshape(latents.shape), latents, atol=1e-6)
    if name == "rq":  # a sum of nearest codes isn't unique
        return
    drawn = jax.random.randint(jax.random.key(3), content.shape, 0, t.vocab)
    values = t.latents(params["quantizer"], drawn)
    np.testing.assert_array_equal(again(t, params["quantizer"], values).reshape(drawn.shape), drawn)


def again(t, qparams, values):
    """The codes of values [B, h, w, C], as the encoder's latents would get them, by the nearest in float64."""
    values = np.float64(values).reshape(-1, t.channels)
    shape = t.slot.shape or (1,)
    every = np.zeros((t.vocab, *shape), np.int32) + np.arange(t.vocab).reshape(-1, *[1] * len(shape))
    rows = np.float64(t.vectors(qparams, jnp.asarray(every if t.slot.shape else every[:, 0])))
    rows = rows.reshape(t.vocab, *shape, t.channels)
    found = []
    for g in range(shape[0]):
        own = np.any(rows[:, g] != 0, axis=0)  # a code's own channels
        far = np.sum(np.square(values[:, None, own] - rows[None, :, g, own]), axis=-1)
        found.append(far.argmin(1))
    return np.stack(found, axis=-1)


def terms(name, t, params, images):
    """Terms of the loss in float64 by name, of the encoder's latents."""
    latents = np.float64(jax.jit(t.codec.encode)(params, images)).reshape(-1, t.channels)
    if name == "binary":
        chance = 1 / (1 + np.exp(-latents))
        return dict(variance=np.mean(chance * (1 - chance)))
    chosen = np.float64(jax.jit(lambda p: t.latents(p["quantizer"], t.encode(p, images)))(params))
    groups = t.groups if name == "product_vq" else 1
    if name in ("vq", "bsq", "product_vq"):
        parts = latents.reshape(-1, groups, t.channels // groups)
        latents = (parts / np.linalg.norm(parts, axis=-1, keepdims=True)).reshape(latents.shape)
    error = np.mean(np.square(chosen.reshape(latents.shape) - latents))
    # Tables that follow, and signs, have no loss of their own.
    return dict(commitment=error) | ({} if name in ("vq_ema", "lfq", "bsq") else dict(codebook=error))


# Of those that are slow, also test_transport.py, test_implicit.py and test_product.py.
@pytest.mark.parametrize("name", some_slow(MEASURED, "vq_wae bsq lfq product_vq qlae".split()))
def test_loss_terms_in_float64(name):
    t, params, images = made(name)
    metrics = t.bottleneck(params, begun(t, params), images, KEY)[3]
    for term, value in terms(name, t, params, images).items():
        np.testing.assert_allclose(metrics[term], value, rtol=2e-5)


# Others learn the digits (test_quantisers.py), or are of the same quantisers and parts.
@pytest.mark.parametrize("name", some_slow(CODED, {*CODED} - {"ibq"}))
def test_a_hundred_steps_on_eight_pictures(name):
    """In bfloat16, whose loss begins near float32's: it falls, of float32 parameters whose codes are whole numbers."""
    t, params, _ = made(name)
    half = tokenizers.build(part(**PARTS[name]), 16, 1, jnp.bfloat16)
    images, optimizer = jnp.asarray(digits()[:8]), optax.adam(3e-3)

    @jax.jit
    def run(params):
        def loss(params, stats, key, i, t=half):
            return t.loss(params, stats, images, key, i, dict(l2=1.0))

        def step(carry, i):
            params, stats, state = carry
            key = jax.random.fold_in(KEY, i)
            grad = jax.value_and_grad(loss, has_aux=True)
            (_, (stats, metrics, _)), gradient = grad(params, stats, key, i)
            updates, state = optimizer.update(gradient, state)
            params, stats = half.revive(optax.apply_updates(params, updates), stats, images, key, i + 1, 100)
            return (params, stats, state), (metrics["loss"], metrics["l2"])

        stats = half.init_stats()
        full = loss(params, stats, jax.random.fold_in(KEY, 0), jnp.int32(0), t)[0]
        begin = params, stats, optimizer.init(params)
        (params, *_), seen = jax.lax.scan(step, begin, jnp.arange(100))
        return params, *seen, full, half.encode(params, images)

    after, losses, errors, full, content = run(params)
    assert all(x.dtype == jnp.float32 and np.isfinite(x).all() for x in jax.tree.leaves(after))
    assert content.dtype == t.slot.dtype and np.isfinite(losses).all()
    np.testing.assert_allclose(losses[0], full, rtol=0.03)
    assert errors[-10:].mean() < 0.4 * errors[:3].mean(), (errors[:3], errors[-10:])
    assert losses[-10:].mean() < losses[:3].mean()
