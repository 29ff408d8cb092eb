"""A decoder that sees the pixels before (VLAE): what it sees; drawing pixel by pixel is what it was trained on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny
from parameters import noisy

from vargen.config import part

TINY = part(
    "pixel_cnn",
    patch=4,
    width=32,
    blocks=1,
    token_width=16,
    channel_width=32,
    window_width=8,
    window_layers=2,
)


@pytest.fixture(scope="module")
def setup():
    """The tokenizer, parameters, latents of two pictures of 8x12 pixels, and the pictures."""
    t = tiny("kl", image_size=(8, 12), encoder=TINY)
    params = noisy(t.init, scale=0.15)
    latents = jax.random.normal(jax.random.key(1), (2, 2, 3, t.channels))
    return t, params, latents, jax.random.uniform(jax.random.key(2), (2, 8, 12, 1), minval=-1)


def means(t, params, latents, images):
    return t.codec.last(params, t.codec.draft(params, latents, None, images, jax.random.key(0))[0])


def test_what_a_pixel_sees(setup):
    """Pixels before it in raster order within the window, and none else."""
    t, params, latents, images = setup
    i, j = 5, 6
    gradient = jax.jit(jax.grad(lambda x: means(t, params, latents, x)[0, i, j, 0]))(images)
    seen = np.abs(gradient[0, ..., 0]) > 0
    rows, columns = np.indices((8, 12))
    reach = 1 + TINY.window_layers
    near = (rows >= i - reach) & (np.abs(columns - j) <= reach)
    before = (rows < i) | ((rows == i) & (columns < j))
    assert not np.any(seen & ~(near & before)) and not np.any(gradient[1])
    assert seen[i, j - 1] and seen[i - 1, j + 1] and seen[i - reach, j] and seen[i, j - reach]


def test_masked_convolutions(setup):
    """The first layer and the last by loops in float64."""
    t, params, latents, images = setup
    t = dataclasses.replace(t, codec=dataclasses.replace(t.codec, decoder=t.codec.decoder.clone(layers=0)))
    found = means(t, params, latents, images)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["decoder"])
    mean = np.asarray(
        t.codec.decoder.smooth.apply({"params": params["decoder"]["smooth"]}, latents), np.float64
    )
    x, taps = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)]), [(0, 0), (0, 1), (0, 2), (1, 0)]
    for b, i, j in [(0, 0, 0), (0, 3, 11), (1, 7, 5), (1, 2, 0)]:
        h = mean[b, i, j] @ p["around"]["kernel"] + p["around"]["bias"]
        h = h + sum(x[b, i + di, j + dj] @ p["before"]["kernel"][di, dj] for di, dj in taps)
        expected = mean[b, i, j] + (h / (1 + np.exp(-h))) @ p["pixel_out"]["kernel"] + p["pixel_out"]["bias"]
        np.testing.assert_allclose(found[b, i, j], expected, atol=1e-4)


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_drawing(setup, spread):
    """A picture drawn pixel by pixel is, but for its noise, the means that training computes from it at once."""
    t, params, latents, _ = setup
    codec = dataclasses.replace(t.codec, decoder=t.codec.decoder.clone(spread=spread))
    drawn = jax.jit(codec.decode)(params, latents)
    off = np.asarray(drawn - means(t, params, latents, drawn))
    if spread:
        np.testing.assert_allclose(off[0], off[1], atol=1e-4)
        assert 0.7 * spread < off.std() < 1.3 * spread
    else:
        np.testing.assert_allclose(off, 0, atol=1e-4)
    assert drawn.std() > 0.1
    np.testing.assert_array_equal(drawn, jax.jit(codec.decode)(params, latents))


@pytest.mark.slow
def test_the_window_spares_the_latents():
    """Texture that the pixels before tell costs no code: stripes of any phase are predicted with latents of zeros."""
    t = tiny("kl", encoder=TINY, kl_weight=1.0)
    params = jax.jit(t.init)(jax.random.key(0))
    phases = np.arange(4)
    stripes = np.where(
        (np.arange(16)[None, None] + np.arange(16)[None, :, None] + phases[:, None, None]) % 4 < 2, 1, -1
    )
    images = jnp.asarray(stripes[..., None], jnp.float32)

    @jax.jit
    def step(params, key):
        def loss(params):
            return t.loss(params, t.init_stats(), images, key, jnp.int32(0), dict(l2=1.0))

        (_, (_, metrics, _)), g = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.05 * jnp.clip(g, -1, 1), params, g), metrics

    for i in range(150):
        params, metrics = step(params, jax.random.key(i))
    blind = means(t, params, jnp.zeros((4, 4, 4, t.channels)), images)
    assert jnp.mean(jnp.square(blind - images)[:, 3:, 3:-3]) < 0.2 and metrics["kl"] < 1.0
