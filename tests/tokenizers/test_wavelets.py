"""Wavelets outside, an autoencoder inside: the transform against matrices of the published taps, the bottleneck against
the Gaussian's distribution function, both in float64."""

import dataclasses
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers.wavelets import WAVELETS, analysis, synthesis

# From the middle outwards: the analysis filters of 9 and 7 taps (JPEG 2000's irreversible ones, of gain sqrt(2)).
LOW = (
    0.8526986790088938,
    0.37740285561283066,
    -0.11062440441843718,
    -0.023849465019556843,
    0.03782845550726404,
)
HIGH = (-0.7884856164055829, 0.41809227322161724, 0.04068941760916406, -0.06453888262869706)
TINY = part("wavelets", levels=2, width=16, blocks=1, groups=4)
NORMAL = statistics.NormalDist()


def matrix(size, wavelet):
    """float64 [size, size], the two bands of one level below each other; the row goes on at its other end."""
    made = np.zeros((size, size))
    for i in range(size // 2):
        if wavelet == "haar":
            made[i, 2 * i], made[i, 2 * i + 1] = 0.5**0.5, 0.5**0.5
            made[size // 2 + i, 2 * i], made[size // 2 + i, 2 * i + 1] = 0.5**0.5, -(0.5**0.5)
            continue
        for k in range(-4, 5):
            made[i, (2 * i + k) % size] += LOW[abs(k)]
        for k in range(-3, 4):
            made[size // 2 + i, (2 * i + 1 + k) % size] += HIGH[abs(k)]
    return made


def packet(x, levels, wavelet):
    """The packet transform of x float64 [H, W] by matrices: [h, w, 4^levels]."""
    bands = [x]
    for _ in range(levels):
        split = []
        for band in bands:
            h, w = (n // 2 for n in band.shape)
            y = matrix(2 * h, wavelet) @ band @ matrix(2 * w, wavelet).T
            split += [y[:h, :w], y[h:, :w], y[:h, w:], y[h:, w:]]
        bands = split
    return np.stack(bands, axis=-1)


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize(
    "levels, shape", [(1, (8, 14)), (2, (16, 8)), pytest.param(3, (24, 16), marks=pytest.mark.slow)]
)
def test_transform(wavelet, levels, shape):
    """The matrices' numbers, channel by channel, and back to the picture: within 2e-6 of numbers of about 1."""
    x = np.random.default_rng(0).normal(size=(2, *shape, 3))
    found = analysis(jnp.asarray(x, jnp.float32), levels, wavelet)
    expected = np.stack(
        [np.concatenate([packet(y[..., c], levels, wavelet) for c in range(3)], axis=-1) for y in x]
    )
    np.testing.assert_allclose(found, expected, atol=5e-6)
    np.testing.assert_allclose(synthesis(found, levels, wavelet), x, atol=5e-6)


@pytest.mark.slow
def test_what_the_bands_hold():
    """A constant is in the low band alone, at 2 times its size a level; cubics have nothing in the high bands but where
    a row begins again; Haar keeps the length of every picture."""
    constant = np.asarray(analysis(jnp.full((1, 16, 16, 1), 0.5), 2, "cdf97"))
    np.testing.assert_allclose(constant[..., 0], 2.0, atol=1e-5)
    np.testing.assert_allclose(constant[..., 1:], 0.0, atol=1e-5)
    t = np.linspace(-1, 1, 32)
    cubic = jnp.asarray((t**3 - t**2 + 1)[:, None] * np.ones(8), jnp.float32)[None, :, :, None]
    high = np.asarray(analysis(cubic, 1, "cdf97"))[0, :, :, 1]
    assert np.abs(high[2:-2]).max() < 1e-5 < 0.1 < np.abs(high).max()
    x = jax.random.normal(jax.random.key(0), (1, 16, 16, 2))
    lengths = [float(jnp.sum(jnp.square(y))) for y in (x, analysis(x, 3, "haar"))]
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-5)


def test_the_encoder_is_linear():
    """Latents of a mean of pictures are the mean of their latents; of one with a network they aren't."""
    x, y = jax.random.uniform(jax.random.key(0), (2, 1, 16, 16, 1), minval=-1)
    for width, linear in ((0, True), (16, False)):
        t = tiny("kl", encoder=part(**{**TINY, "encoder_width": width}))
        params = t.init(jax.random.key(0))
        a, b, mean = (t.codec.encode(params, z) for z in (x, y, (x + y) / 2))
        assert (float(jnp.abs(mean - (a + b) / 2).max()) < 1e-5) == linear
    assert set(tiny("kl", encoder=TINY).init(jax.random.key(0))["encoder"]) == {"linear"}


@pytest.mark.slow
def test_other_sizes():
    """The same parameters serve every size that divides, where a shift by a latent's side shifts the latents."""
    t = tiny("vq", encoder=TINY)
    params = t.init(jax.random.key(0))
    wide = t.over(((6, 8),))
    assert wide.image_size == (24, 32)
    images = jax.random.uniform(jax.random.key(1), (1, 24, 32, 1), minval=-1)
    latents = wide.codec.encode(params, images)
    turned = wide.codec.encode(params, jnp.roll(images, (4, 8), (1, 2)))
    np.testing.assert_allclose(turned, jnp.roll(latents, (1, 2), (1, 2)), atol=1e-5)
    assert wide.codec.decode(params, latents).shape == images.shape


def test_published_encoder():
    """WaLLoC's of 16 times fewer numbers, RGB, 8x8 pixels a latent of 12: one matrix and its bias."""
    t = tokenizers.build(part("companded", encoder=part("wavelets")), 256, 3)
    params = jax.eval_shape(t.init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params["encoder"])) == 3 * 64 * 12 + 12
    assert (t.grid.levels, t.slot.shape, t.vocab) == (((32, 32),), (12,), 255)


@pytest.mark.parametrize(
    "size, options, message",
    [
        (20, dict(levels=3), "3 levels need an image size divisible by 8, found 20x20, which allows 2"),
        (15, dict(levels=1), "1 levels need an image size divisible by 2, found 15x15"),
        (16, dict(width=24), "tokenizer.encoder.groups: expected a divisor of all widths, found 16 and 24"),
        (16, dict(wavelet="db4"), "tokenizer.encoder.wavelet: expected one of cdf97, haar, found 'db4'"),
    ],
)
def test_what_does_not_fit(size, options, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        tokenizers.build(part("vq", encoder=part("wavelets", groups=16, **options)), size, 1)


@pytest.mark.parametrize("vocab", [pytest.param(4, marks=pytest.mark.slow), 15])
def test_companded_codes(vocab):
    """Codes and values by the formulas in float64, on a grid of latents; each code decodes to one of its own."""
    t = dataclasses.replace(tiny("companded"), vocab=vocab, spread=1.5)
    z = np.linspace(-7, 7, 400).reshape(-1, 1) * np.ones(t.channels)
    u = (vocab - 2e-3) * (np.vectorize(NORMAL.cdf)(z / 1.5) - 0.5)
    codes = t.codes(t.places(t.squeezed(jnp.asarray(z, jnp.float32))))
    sure = np.abs(u + (vocab - 1) / 2 - np.floor(u + (vocab - 1) / 2) - 0.5) > 1e-4
    np.testing.assert_array_equal(np.asarray(codes)[sure], np.round(u + (vocab - 1) / 2)[sure])
    assert (int(codes.min()), int(codes.max())) == (0, vocab - 1)
    every = np.arange(vocab)[:, None] * np.ones(t.channels, int)
    share = np.clip((every - (vocab - 1) / 2) / (vocab - 2e-3) + 0.5, 1e-4, 1 - 1e-4)
    np.testing.assert_allclose(t.decoded(every), 1.5 * np.vectorize(NORMAL.inv_cdf)(share), atol=1e-5)
    np.testing.assert_array_equal(t.codes(t.places(t.squeezed(t.decoded(every)))), every)


@pytest.mark.slow
def test_companded_training():
    """In training a latent lies within half a step of itself on the code's scale, evenly spread; the gradient is that
    of the formula, f(z) / f(z') with the Gaussian's density f at the latent and at the blurred one."""
    t = dataclasses.replace(tiny("companded"), spread=1.0)
    z = jax.random.normal(jax.random.key(1), (64, 4, 4, t.channels))
    key = jax.random.key(2)
    blurred, pull = jax.vjp(lambda z: t.blurred(t.squeezed(z), key), z)
    off = np.asarray(t.squeezed(blurred) - t.squeezed(z))
    inside = np.abs(t.squeezed(z)) < t.vocab / 2 - 0.6
    assert inside.mean() > 0.9 and np.abs(off[inside]).max() < 0.501
    assert abs(off[inside].mean()) < 0.02 and abs(off[inside].var() - 1 / 12) < 0.005
    expected = np.exp((np.square(blurred, dtype=np.float64) - np.square(z, dtype=np.float64)) / 2)
    np.testing.assert_allclose(pull(jnp.ones_like(z))[0][inside], expected[inside], rtol=1e-3)

    params, images = (
        t.init(jax.random.key(0)),
        jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1),
    )
    latents, extra, _, _ = t.bottleneck(params, t.init_stats(), images, key)
    np.testing.assert_array_equal(latents, t.blurred(t.squeezed(t.codec.encode(params, images)), key))
    assert extra == 0
