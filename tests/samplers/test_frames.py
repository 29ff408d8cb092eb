"""A generator over the slots of clips, frame by frame: configs/clips.py, smaller."""

import functools
import pathlib

import jax
import numpy as np
import pytest
from parameters import noisy
from uncached import uncached

from vargen import config, models
from vargen.errors import UserError
from vargen.model import Model
from vargen.samplers import Sampling, decode

FILE = pathlib.Path(__file__).parents[2] / "configs" / "clips.py"


@pytest.fixture(scope="module")
def model():
    c = config.load(FILE.with_suffix(".py:vitok"))
    c.data.frames = 4
    c.tokenizer.encoder.update(dict(width=24, layers=1, heads=2, patch=8))
    c.model.update(dict(layers=2, width=32, mlp_width=48))
    c.mixer.heads = 2
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    return Model(c, *(noisy(x.init, scale=0.2) for x in (tokenizer, generator)))


def test_cached_equals_uncached(model):
    """Two frames of 2x2 slots in raster order: the first frame comes first, and the same codes with a cache."""
    grid = model.tokenizer.grid
    assert (grid.frames, grid.levels, grid.size) == (2, ((2, 2),), 8)
    sampling = Sampling.make(guidance=1.5, temperature=0.9)
    args = (
        model.generator_params,
        model.tokenizer_params["quantizer"],
        np.arange(3),
        jax.random.key(5),
        sampling,
    )
    found, order, *_ = jax.jit(functools.partial(decode, model.generator))(*args)
    np.testing.assert_array_equal(found, uncached(model.generator, *args))
    assert len(np.unique(found, axis=0)) == 3
    frames = grid.coords[np.asarray(order.slots).reshape(-1)[:8], 1]
    np.testing.assert_array_equal(frames, np.repeat([0, 1], 4))


def test_clips_in_and_out(model):
    """Whole clips come out of `sample` and `reconstruct`; what is of pictures alone says so."""
    clips = model.sample([1, 2], 0)
    assert clips.shape == (2, 4, 16, 16, 1) and np.abs(clips).max() <= 1
    assert model.reconstruct(clips).shape == clips.shape and "images 4x16x16x1" in repr(model)
    with pytest.raises(
        UserError, match=r"images: expected float \[B, 4, 16, 16, 1\] in .*, found an array \[2, 16, 16, 1\]"
    ):
        model.encode(clips[:, 0])
    with pytest.raises(UserError, match="kept: expected a tokenizer of pictures, .* found one of clips"):
        model.complete(clips, np.eye(16, dtype=bool), [0, 1], 0)
    with pytest.raises(
        UserError, match="images: expected a tokenizer of pictures for tiles, found one of clips"
    ):
        model.tiled(clips)
    with pytest.raises(UserError, match="expected 4x16x16 pixels, as the encoder takes no other"):
        model.sized(32, 32)
