"""Pictures of twice the size around one of the trained size, by models that were never trained on such."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import plain
from systems import SYSTEMS
from uncached import uncached

from vargen import models
from vargen.config import part
from vargen.errors import UserError
from vargen.model import Model
from vargen.samplers import Sampling

LABELS, OPTIONS = [1, 2], dict(temperature=0.5, guidance=2.0, steps=3)


@functools.cache
def model(system, **encoder):
    """Of 2x2 slots, 4x4 pixels."""
    c = SYSTEMS[system]()
    c.tokenizer.encoder = part(**encoder) if encoder else part("conv", width=4, multipliers=(1, 1), groups=2)
    c.data.image_size = 4
    if c.feed.get("positions"):
        c.feed.positions = False  # which another grid has not
    c.order = {k: v for k, v in c.order.items() if k != "steps"}  # more than there are slots
    tokenizer = models.build_tokenizer(c)
    parts = tokenizer, models.build_generator(c, tokenizer)
    return Model(c, *(plain(x.init, scale=0.3) for x in parts))


def test_around_the_smaller_picture():
    """Its codes stand at even rows and columns; the others are those of whole passes (RandAR's are in its golden)."""
    own = model("arpg")
    larger = own.over((2, 4))
    small, large = (m.generate(LABELS, 0, **OPTIONS)[0] for m in (own, larger))
    np.testing.assert_array_equal(large.reshape(2, 4, 4)[:, ::2, ::2].reshape(2, 4), small)
    assert larger.decode(large).shape == (2, 8, 8, 1)
    even = larger.tokenizer.grid.even
    given = (jnp.where(even, large, 0), even)
    key = jax.random.split(jax.random.fold_in(jax.random.key(0), 16))[0]
    sampling = larger.sampling(**OPTIONS)
    params, quantizer = larger.generator_params, larger.tokenizer_params["quantizer"]
    expected = uncached(larger.generator, params, quantizer, jnp.array(LABELS), key, sampling, given)
    chex.assert_trees_all_equal(large, expected)
    larger.config.sampling.update(OPTIONS)  # as the commands do; both pictures are drawn so
    np.testing.assert_array_equal(larger.generate(LABELS, 0)[0], large)
    with pytest.raises(UserError, match="sampling.steps: expected 1 to 4 .* found 9"):
        larger.sampling(steps=9)  # which the larger one has


@pytest.mark.slow
def test_guidance_by_the_smaller_picture():
    """By a share of it; leaving nothing out changes nothing."""
    own = model("randar")
    larger = own.over((2, 4))

    def draw(**options):
        return np.asarray(larger.generate(LABELS, 0, **OPTIONS, **options)[0])

    plain = draw()
    small = own.generate(LABELS, 0, **OPTIONS)[0]
    np.testing.assert_array_equal(plain.reshape(2, 4, 4)[:, ::2, ::2].reshape(2, 4), small)
    np.testing.assert_array_equal(draw(spatial_guidance=3.0, spatial_share=0.0), plain)
    other = draw(spatial_guidance=8.0, spatial_share=1.0)
    even = larger.tokenizer.grid.even
    np.testing.assert_array_equal(other[:, even], plain[:, even])
    assert not np.array_equal(other, plain)


def test_what_cannot_be_larger():
    own = model("randar")
    for levels, words in (
        ((2, 6), "expected each twice the one before, found 2x2 before 6x6"),
        ((4, 8), "expected the first of several to be 2x2, as trained, found 4x4"),
    ):
        with pytest.raises(UserError, match=words):
            own.over(levels)
    patches = model("randar", name="patch", patch=2, width=8, blocks=1)
    with pytest.raises(UserError, match="expected 2x2, as the encoder takes no other, found 4x4"):
        patches.over((2, 4))
    assert model("llamagen").over((3,)).tokenizer.image_size == (6, 6)
    with pytest.raises(
        UserError, match="several need an order that may begin with any slots, .* found raster"
    ):
        model("llamagen").over((2, 4))
    with pytest.raises(UserError, match="needs a generator without parameters for each level or place"):
        model("rar").over((4,))
    for m in (own, model("arpg").over((2, 4))):
        with pytest.raises(
            UserError, match="sampling.spatial_guidance: expected 1 but for several levels of whole"
        ):
            m.generate(LABELS, 0, spatial_guidance=2.0, guidance=2.0)
    made = Sampling.make(spatial_guidance=1.0)
    assert not made.spatial and Sampling.make(spatial_guidance=0.0).spatial
