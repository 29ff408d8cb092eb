"""ACDiT's models of videos at the sizes of its published files. There is no source of clips yet, and so no config of
them: the generators are built over a grid of frames, as `parity.acdit` builds the golden's."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen import config, models
from vargen.config import part
from vargen.interop.parity.golden import stand_in
from vargen.samplers import Sampling, decode
from vargen.slots import Grid

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
FRAMES, SIDE, PATCH, CLASSES = (
    16,
    16,
    4,
    101,
)  # of UCF-101 at 256 pixels: stride 8, slots of 2x2 latents of 4 channels


def of_videos(size):
    """The generator: four frames a step."""
    c, sizes = (
        stand_in(SIDE, classes=CLASSES, name="kl", channels=4 * PATCH),
        config.load(f"{CONFIGS}/acdit.py:{size}"),
    )
    for field in ("feed", "mixer", "head", "model", "conditioning", "training"):
        c[field] = sizes[field]
    c.order = part("chunks", size=4 * SIDE**2)
    tokenizer = models.build_tokenizer(c)
    return models.build_generator(
        c, dataclasses.replace(tokenizer, grid=Grid(((SIDE, SIDE),), frames=FRAMES))
    )


@pytest.mark.parametrize("size", ["xl", "h"])
def test_videos_of_the_published_sizes(size):
    """They differ from those of images in the ends of slots and in classes alone; loss and sampler trace."""
    generator = of_videos(size)
    images = config.load(f"{CONFIGS}/acdit.py:{size}")
    width, channels = images.model.width, 4
    images = models.build_generator(images, models.build_tokenizer(images))
    # Channels on the way in and out (with its bias), and classes.
    more = (4 * PATCH - channels) * (2 * width + 1) - (1000 - CLASSES) * width
    assert models.parameter_count(generator) == models.parameter_count(images) + more

    order = generator.ordering.decoding(None, 1)
    np.testing.assert_array_equal(order.sizes, [4 * SIDE**2] * (FRAMES // 4))
    places = generator.tokenizer.grid.places[np.asarray(order.slots).ravel()]
    np.testing.assert_array_equal(places[:, 0], np.repeat(np.arange(FRAMES), SIDE**2))

    params = jax.eval_shape(generator.init, jax.random.key(0))
    n = FRAMES * SIDE**2
    slots = jax.ShapeDtypeStruct((2, n, 4 * PATCH), jnp.float32)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    key, settings = jax.random.key(0), Sampling(guidance=1.5)
    drawn = jax.eval_shape(lambda p, y: decode(generator, p, None, y, key, settings), params, labels)
    assert jax.tree.leaves(drawn)[0].shape == slots.shape
    loss = jax.eval_shape(lambda p, x, y: generator.loss(p, None, x, y, key)[0], params, slots, labels)
    assert loss.shape == ()
