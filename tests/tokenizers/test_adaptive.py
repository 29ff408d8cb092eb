"""The encoder part "adaptive"; tests/interop/test_parity.py compares the whole of it with its authors' outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers import adaptive

TINY = part("adaptive", width=8, multipliers=(1, 2), blocks=1, groups=4)


def test_the_latents_normalise():
    """Against the formula in float64: within 1e-5."""
    rng = np.random.default_rng(0)
    x, latents = rng.normal(2, 3, (2, 4, 6, 8)), rng.normal(1, 2, (2, 2, 3, 5))
    norm = adaptive.AdaptiveNorm(4)
    made = nn.meta.unbox(norm.init(jax.random.key(0), jnp.float32(x), jnp.float32(latents)))
    params = jax.tree.map(lambda p: rng.normal(size=p.shape), made)["params"]
    found = norm.apply({"params": jax.tree.map(jnp.float32, params)}, jnp.float32(x), jnp.float32(latents))
    groups = x.reshape(2, 24, 4, 2)
    mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    normal = ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    places = latents.reshape(2, 6, 5)
    deviation = np.sqrt(places.var(1, ddof=1) + 1e-6)
    scale = deviation @ params["scale"]["kernel"] + params["scale"]["bias"]
    offset = places.mean(1) @ params["offset"]["kernel"] + params["offset"]["bias"]
    expected = normal * scale[:, None, None] + offset[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_channels_become_pixels():
    x = np.arange(2 * 3 * 8).reshape(1, 2, 3, 8)
    found = np.asarray(adaptive.spread(jnp.asarray(x)))
    assert found.shape == (1, 4, 6, 2)
    for row, column in np.ndindex(4, 6):
        first = 2 * (2 * (row % 2) + column % 2)
        np.testing.assert_array_equal(found[0, row, column], x[0, row // 2, column // 2, first : first + 2])


@pytest.mark.slow
def test_training_reaches_all_parameters():
    tokenizer = tokenizers.build(part("kl", channels=4, encoder=TINY), (16, 8), 1)
    params = tokenizer.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, 16, 8, 1))

    @jax.jit
    def gradients(params):
        def loss(params):
            latents = tokenizer.bottleneck(params, tokenizer.init_stats(), images, jax.random.key(2))[0]
            return jnp.mean(jnp.square(tokenizer.decode_latents(params, latents) - images))

        return jax.grad(loss)(params)

    found = gradients(params)
    reached = jax.tree.map(lambda g: bool(jnp.any(g != 0)), dict(found["encoder"], decoder=found["decoder"]))
    assert all(jax.tree.leaves(reached))


def test_any_size_and_its_errors():
    tokenizer = tokenizers.build(part("lfq", channels=4, encoder=TINY), 16, 3)
    params = tokenizer.init(jax.random.key(0))
    larger = tokenizer.over(((4, 12),))
    images = jnp.zeros((1, 8, 24, 3))
    assert larger.decode(params, larger.encode(params, images)).shape == images.shape
    for size, options, words in (
        (15, {}, "2 levels need an image size divisible by 2, found 15x15"),
        (16, dict(width=6), "expected a divisor of all widths, found 4 and 6"),
    ):
        with pytest.raises(UserError, match=words):
            tokenizers.build(part("lfq", channels=4, encoder={**TINY, **options}), size, 3)
