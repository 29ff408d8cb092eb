"""What pictures go through before they are judged (DiffAugment, arXiv 2006.10738), against NumPy in float64."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import noisy

from vargen import config
from vargen.tokenizers import discriminators
from vargen.tokenizers.adversary import Adversary
from vargen.tokenizers.discriminators import augment

RNG = np.random.default_rng(0)


def changed(images, changes, kinds, hole):
    """Each picture by itself, pixel by pixel."""
    result = []
    for x, brightness, saturation, contrast, (down, right), (row, column) in zip(
        images.astype(np.float64), *map(np.asarray, changes)
    ):
        height, width, _ = x.shape
        if "color" in kinds:
            x = x + np.float64(brightness)
            grey = x.mean(-1, keepdims=True)
            x = (x - grey) * np.float64(saturation) + grey
            x = (x - x.mean()) * np.float64(contrast) + x.mean()
        if "translation" in kinds:
            moved = np.zeros_like(x)
            for i in range(height):
                for j in range(width):
                    if 0 <= i + down < height and 0 <= j + right < width:
                        moved[i + down, j + right] = x[i, j]
            x = moved
        if "cutout" in kinds:
            h, w = (int(side * hole + 0.5) for side in (height, width))
            x = x.copy()
            x[
                max(row - h // 2, 0) : max(row - h // 2 + h, 0),
                max(column - w // 2, 0) : max(column - w // 2 + w, 0),
            ] = 0
        result.append(x)
    return np.stack(result)


@pytest.mark.parametrize("kinds", [(), *((k,) for k in augment.KINDS), augment.KINDS], ids="+".join)
@pytest.mark.parametrize("hole", [0.5, 0.2])
def test_against_numpy(kinds, hole):
    """Values and, the change being linear but for what is added, gradients: by one direction of each number."""
    images = RNG.uniform(-1, 1, (6, 16, 12, 3)).astype(np.float32)
    changes = augment.draw(jax.random.key(1), 6, (16, 12), hole)
    found = augment.apply(jnp.asarray(images), changes, kinds, hole)
    expected = changed(images, changes, kinds, hole)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    weights = RNG.normal(size=images.shape)
    gradient = jax.grad(lambda x: jnp.sum(augment.apply(x, changes, kinds, hole) * weights))(
        jnp.asarray(images)
    )
    direction = RNG.normal(size=images.shape)
    slope = np.sum(
        weights * (changed(direction, changes, kinds, hole) - changed(0 * direction, changes, kinds, hole))
    )
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-4)


def test_draws_reach_their_ends():
    """Every picture its own; all shifts up to an eighth, all places of the square, colours from end to end."""
    found = augment.draw(jax.random.key(0), 4000, (16, 8), 0.5)
    assert {*np.unique(found.shift[:, 0])} == {-2, -1, 0, 1, 2} and {*np.unique(found.shift[:, 1])} == {
        -1,
        0,
        1,
    }
    assert {*np.unique(found.middle[:, 0])} == {*range(17)} and {*np.unique(found.middle[:, 1])} == {
        *range(9)
    }
    for name, low, high in (("brightness", -0.5, 0.5), ("saturation", 0, 2), ("contrast", 0.5, 1.5)):
        values = np.asarray(getattr(found, name))
        assert (
            low <= values.min() < low + 0.01 * (high - low)
            and high - 0.01 * (high - low) < values.max() <= high
        )
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)


def test_odd_squares_have_a_middle_pixel():
    found = augment.draw(jax.random.key(0), 2000, (10, 10), 0.5)
    assert {*np.unique(found.middle)} == {*range(10)}


@pytest.mark.slow
def test_both_sides_of_the_game_see_changed_pictures():
    """Real and decoded ones by draws of their own, and the tokenizer's gradient goes through."""
    settings, none = (config.config().tokenizer_training.losses for _ in range(2))
    settings.update(dict(augment=augment.KINDS, augment_hole=0.25))
    judge = discriminators.build(config.part("patch", width=4, layers=1))
    adversary = Adversary(judge, settings, (16, 16, 3))
    params = noisy(lambda key: nn.meta.unbox(adversary.init_boxed(key)))
    real, fake = (jnp.asarray(RNG.uniform(-1, 1, (4, 16, 16, 3)), jnp.float32) for _ in range(2))
    key = jax.random.key(3)

    def seen(key, images):
        return augment.apply(images, augment.draw(key, 4, (16, 16), 0.25), augment.KINDS, 0.25)

    plain = dataclasses.replace(adversary, settings=none)
    own = params, {}, {}
    keys = jax.random.split(key)
    found = adversary.loss(*own, key, real, fake, jnp.int32(0))[0]
    expected = plain.loss(*own, key, seen(keys[0], real), seen(keys[1], fake), jnp.int32(0))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert abs(plain.loss(*own, key, real, fake, jnp.int32(0))[0] - found) > 1e-3
    found = jax.grad(lambda x: adversary.fool(*own, key, x))(fake)
    expected = jax.grad(lambda x: plain.fool(*own, key, seen(key, x)))(fake)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.any(found != 0, axis=(1, 2, 3)).all()
