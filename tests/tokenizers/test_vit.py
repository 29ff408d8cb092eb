"""Transformers at both ends: windows against a masked attention in float64, published sizes.

BSQ-ViT's own numbers: tests/interop/test_parity.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny
from parameters import noisy

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers.vit import joined, windowed

TINY = part("vit", patch=4, width=32, layers=2, heads=4)


def reference(p, x, heads, window, shift):
    """A trunk in float64, whose attention is of the whole grid under a mask: x [h, w, D], [t, h, w, D] -> the same."""

    def affine(y, q):
        return y @ np.asarray(q["kernel"], np.float64) + np.asarray(q["bias"], np.float64)

    def normed(y, q):
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
        return y * np.asarray(q["scale"], np.float64) + np.asarray(q["bias"], np.float64)

    *grid, width = x.shape
    places = np.indices(grid).reshape(len(grid), -1)
    half = width // (2 * len(grid))
    angles = places[..., None] * 10000.0 ** (-np.arange(half) / half)
    own = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
    x = x.reshape(-1, width) + np.concatenate([*own], axis=-1)
    for i in range(2):
        q = p[f"block{i}"]
        start = window // 2 if shift and i % 2 else 0
        where = (places + start) // window
        seen = np.all(where[:, :, None] == where[:, None], axis=0)
        y = normed(x, q["norm_1"])
        query, key, value = (
            affine(y, q["mixer"][n]).reshape(len(x), heads, -1) for n in ("query", "key", "value")
        )
        logits = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(width // heads)
        weights = np.where(seen, np.exp(logits - logits.max()), 0)
        weights /= weights.sum(-1, keepdims=True)
        x = x + affine(np.einsum("hqk,khd->qhd", weights, value).reshape(len(x), -1), q["mixer"]["out"])
        y, m = normed(x, q["norm_2"]), q["feed_forward"]
        gate = affine(y, m["gate"])
        x = x + affine(gate / (1 + np.exp(-gate)) * affine(y, m["up"]), m["down"])
    return normed(x, p["norm_out"]).reshape(*grid, width)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "window, shift",
    [pytest.param(2, False, marks=SLOW), (2, True), pytest.param(3, True, marks=SLOW), (8, False)],
)
def test_windows(window, shift):
    """Attention in windows is that of the whole grid under a mask, also where windows go beyond the grid."""
    check((16, 24), (4, 6), 32, window, shift)


def test_clips():
    """A trunk over frames, rows and columns is that of all patches in a row, with sines of three places."""
    check((6, 8, 12), (3, 2, 3), 24, 0, False, patch_frames=2)


def check(size, grid, width, window, shift, **options):
    options |= dict(width=width, window=window, shift=shift, positions="sinusoid")
    t = tokenizers.build(part("kl", channels=width, encoder=part(**{**TINY, **options})), size, 1)
    params = noisy(t.init, scale=0.1)["decoder"]
    params["projection"] = dict(kernel=np.eye(width, dtype=np.float32), bias=np.zeros(width, np.float32))
    x = np.random.default_rng(0).normal(size=(2, *grid, width))
    found = t.codec.decoder.apply({"params": params}, jnp.asarray(x, jnp.float32), method="features")
    expected = np.stack([reference(params["trunk"], y, 4, window or 99, shift) for y in x])
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("sides", [(2, 2), (3, 4)])
def test_cutting(sides, start):
    """Every place of the grid is in one window, and comes back to where it was."""
    x = np.arange(1, 2 * 5 * 7 + 1, dtype=np.float32).reshape(2, 5, 7, 1)
    rows, exists = windowed(jnp.asarray(x), sides, start)
    assert rows.shape[1] == sides[0] * sides[1]
    np.testing.assert_array_equal(np.asarray(rows)[..., 0] > 0, exists)
    assert exists.sum() == x.size
    np.testing.assert_array_equal(joined(rows, (2, 5, 7), sides, start), x)


@pytest.mark.slow
def test_other_sizes():
    """With rope the same parameters serve other sizes; a table of places is of one."""
    t = tiny("vq", encoder=part(**{**TINY, "window": 2}))
    params = t.init(jax.random.key(0))
    wide = t.over(((6, 8),))
    images = jax.random.uniform(jax.random.key(1), (1, 24, 32, 1), minval=-1)
    latents = wide.codec.encode(params, images)
    turned = wide.codec.encode(params, jnp.roll(images, (8, 8), (1, 2)))
    np.testing.assert_allclose(turned, jnp.roll(latents, (2, 2), (1, 2)), atol=1e-5)
    assert wide.decode(params, wide.encode(params, images)).shape == images.shape
    with pytest.raises(UserError, match="the encoder takes no other, found 6x8"):
        tiny("vq", encoder=part(**{**TINY, "positions": "learned"})).over(((6, 8),))


def block_count(width, hidden, gated):
    """Parameters of one of the authors' blocks: two norms, attention, the position-wise network."""
    around = 2 * width * hidden + hidden + width + gated * (width * hidden + hidden)
    return 4 * width + 4 * (width * width + width) + around


def test_published_sizes():
    """BSQ-ViT's for 256x256 pixels, layer by layer: 174 M; and ViTok's S and B, 43.3 M and 85.8 M at their ends."""
    options = dict(layers=12, positions="learned", mlp="gelu", norm_in=True, eps=1e-5, out_width=3072)
    t = tokenizers.build(part("bsq", channels=36, groups=36, encoder=part("vit", patch=8, **options)), 256, 3)
    params = jax.eval_shape(t.init, jax.random.key(0))
    ends = 12 * block_count(768, 3072, False) + 1024 * 768 + 2 * 2 * 768
    pixels = 3 * 8 * 8
    count = 2 * ends + pixels * 768 + (768 * 36 + 36) + (36 * 768 + 768)
    count += 768 * 3072 + 3072 + 3072 * pixels + pixels
    assert sum(x.size for x in jax.tree.leaves(params)) == count == 174_843_876
    t = tokenizers.build(part("kl", channels=16, encoder=part("vit", decoder_layers=12)), 256, 3)
    params = jax.eval_shape(t.init, jax.random.key(0))
    for side, millions in (("encoder", 43.3), ("decoder", 85.8)):
        assert abs(sum(x.size for x in jax.tree.leaves(params[side])) / 1e6 - millions) < 0.3


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(patch=5), "tokenizer.encoder.patch: expected a divisor of the image's 16x16 pixels, found 5"),
        (dict(shift=True), "tokenizer.encoder.shift: needs a window of at least 2, found 0"),
        (
            dict(heads=16),
            "tokenizer.encoder.heads: expected heads of a multiple of 4 channels for positions rope",
        ),
        (
            dict(decoder_heads=5),
            "tokenizer.encoder.decoder_heads: expected heads of a multiple of 4 channels",
        ),
    ],
)
def test_what_does_not_fit(options, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        tiny("vq", encoder=part(**{**TINY, **options}))
