"""Products of tables and of bins: against a search of each part in float64, and the authors' bins."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


@pytest.mark.parametrize("name", ["product_vq", "qlae"])
def test_every_part_has_its_own_nearest_code(name):
    t = tiny(name)
    params = jax.jit(t.init)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1)

    @jax.jit
    def both(params):
        features = t.codec.encode(params, images)
        codes = t.encode(params, images)
        straight, loss, stats, metrics = t.bottleneck(params, t.init_stats(), images, None)
        return features, codes, t.latents(params["quantizer"], codes), straight, loss, stats, metrics

    features, codes, latents, straight, loss, stats, metrics = both(params)
    parts = np.float64(features).reshape(2, 16, t.groups, t.width)
    tables = np.float64(params["quantizer"]["codebook"])
    if t.normalise:
        parts, tables = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (parts, tables))
    far = np.sum(np.square(parts[..., None, :] - tables), axis=-1)  # [2, 16, G, K]
    np.testing.assert_array_equal(codes, far.argmin(-1))
    chosen = np.take_along_axis(tables[None, None], codes[..., None, None], axis=3)[..., 0, :]
    np.testing.assert_allclose(latents, chosen.reshape(2, 4, 4, t.channels), atol=1e-6)
    np.testing.assert_allclose(straight, latents, atol=1e-6)
    error = np.mean(np.square(chosen - parts))
    np.testing.assert_allclose([metrics["codebook"], metrics["commitment"]], error, rtol=1e-5)
    np.testing.assert_allclose(loss, (t.codebook_weight + t.beta) * error, rtol=1e-5)
    for g in range(t.groups):
        np.testing.assert_allclose(
            stats["share"][g], np.bincount(codes[..., g].reshape(-1), minlength=t.vocab) / 32, atol=1e-6
        )
    if name == "qlae":
        np.testing.assert_allclose(tables[:, :, 0], np.tile(np.linspace(-0.5, 0.5, 6), (3, 1)), atol=1e-7)


@pytest.mark.slow
def test_each_groups_dead_codes_are_revived():
    """Onto parts of its own group: the tables differ in scale, and stay so."""
    t = tiny("product_vq", normalise=False, vocab=8)
    params, stats = jax.jit(t.init)(jax.random.key(0)), t.init_stats()
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 1), minval=-1)
    stats = dict(stats, share=jnp.zeros((2, 8)).at[:, 0].set(1.0), updates=jnp.int32(9))
    moved, after = jax.jit(lambda p: t.revive(p, stats, images, jax.random.key(2), 5, 100))(params)
    before, now = params["quantizer"]["codebook"], moved["quantizer"]["codebook"]
    np.testing.assert_array_equal(now[:, 0], before[:, 0])
    parts = np.asarray(t.parted(t.codec.encode(params, images))).reshape(-1, 2, 2)
    for g in range(2):
        for code in now[g, 1:]:
            assert np.min(np.abs(parts[:, g] - code).max(-1)) < 1e-5
    assert np.all(after["share"][:, 1:] > 0)


def test_bins_are_the_authors():
    """TokenBridge's 8 bins, and what they make of numbers; codes back and forth."""
    means = [-1.628965, -0.89538443, -0.49134922, -0.15797639, 0.15797639, 0.49134922, 0.89538443, 1.6289654]
    t = tiny("binned_kl", spread=1.0)
    np.testing.assert_allclose(t.bins(), means, rtol=1e-6)
    found = t.binned(jnp.asarray([-9.0, -1.263, -1.26, 0.0001, 0.32, 0.33, 9.0]))
    np.testing.assert_array_equal(found, [0, 0, 1, 4, 4, 5, 7])
    codes = jnp.arange(8)[:, None].repeat(3, 1)
    np.testing.assert_array_equal(t.binned(t.vectors({}, codes).sum(-2)), codes)


def test_bins_of_recorded_latents():
    """TokenBridge's own codes of latents, and what they stand for. It multiplies latents by 0.6 first."""
    golden = np.load(GOLDENS / "tokenbridge_bins.npz")
    t = tiny("binned_kl", spread=5 / 3)
    latents = golden["in/x"].reshape(2, 16, 16).transpose(0, 2, 1)
    codes = t.binned(latents)
    np.testing.assert_array_equal(codes, golden["out/indices"])
    np.testing.assert_allclose(t.bins()[np.asarray(codes)], golden["out/dequantised"], atol=1e-6)


def test_binned_latents_are_decoded():
    t = tiny("binned_kl")
    params = jax.jit(t.init)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1)
    stored = t.stored(params, images)
    codes, _ = t.drawn(params["quantizer"], stored, jax.random.key(2))
    assert stored.shape == (2, 16, 6) and codes.shape == (2, 16, 3) and codes.dtype == jnp.int32
    mode = t.encode(params, images)
    expected = t.bins()[np.asarray(mode)] / t.scale
    np.testing.assert_allclose(
        t.latents(params["quantizer"], mode), expected.reshape(2, 4, 4, 3), rtol=1e-5, atol=1e-6
    )


def test_refused():
    with pytest.raises(UserError, match="tokenizer.groups: expected a divisor of 12 channels, found 5"):
        tokenizers.build(part("product_vq", channels=12, groups=5, encoder=part("patch", patch=4)), 16, 1)
