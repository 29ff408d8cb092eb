"""Bits: their probabilities, draws, gradient and loss by formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from common import tiny


def test_training_draws_and_encoding_rounds():
    """Of a picture in many copies each bit is 1 as often as sigmoid(latent); the likelier one is encoded."""
    t = tiny("binary", certainty_weight=0.3)
    params = jax.jit(t.init)(jax.random.key(0))
    image = jax.random.uniform(jax.random.key(1), (1, 16, 16, 1), minval=-1)

    @jax.jit
    def run(params):
        many = jnp.broadcast_to(image, (3000, 16, 16, 1))
        latents, loss, _, metrics = t.bottleneck(params, t.init_stats(), many, jax.random.key(2))
        content = t.encode(params, image)
        return t.codec.encode(params, image), latents, loss, metrics, content, t.latents({}, content)

    features, latents, loss, metrics, content, decoded = run(params)
    chance = 1 / (1 + np.exp(-np.float64(features)))
    assert t.slot.shape == (6,) and t.slot.vocab == 2 and content.shape == (1, 16, 6)
    np.testing.assert_allclose(np.abs(latents), 1, atol=1e-6)
    np.testing.assert_allclose(np.mean(latents > 0, axis=0)[None], chance, atol=5 * 0.5 / np.sqrt(3000))
    np.testing.assert_array_equal(content, (chance > 0.5).reshape(1, 16, 6))
    np.testing.assert_array_equal(decoded, np.where(chance > 0.5, 1, -1))
    np.testing.assert_allclose(metrics["variance"], np.mean(chance * (1 - chance)), rtol=1e-5)
    np.testing.assert_allclose(loss, 0.3 * metrics["variance"], rtol=1e-6)


def test_the_gradient_is_the_expected_values():
    """Of 2 sigmoid(latent) - 1, whatever was drawn."""
    t = tiny("binary")
    params = jax.jit(t.init)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1)
    weight = jax.random.normal(jax.random.key(2), (2, 4, 4, 6))

    def through(params):
        return jnp.sum(weight * t.bottleneck(params, t.init_stats(), images, jax.random.key(3))[0])

    def expected(params):
        return jnp.sum(weight * jnp.tanh(t.codec.encode(params, images) / 2))

    found, own = jax.jit(lambda p: (jax.grad(through)(p), jax.grad(expected)(p)))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found["encoder"], own["encoder"])
    assert np.any(jax.tree.leaves(found["encoder"])[0])
