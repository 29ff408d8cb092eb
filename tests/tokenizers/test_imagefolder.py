"""Products of quantisers against ImageFolder's own: lxa9867/ImageFolder 76ddfb9, with one level and with five.

Their tokens are one sequence, of which the first half is one branch's and the second the other's; here a branch has its
channels. Their multi-scale commitment loss is a sum over levels where the codebook's is an average.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import FOLDER, PATCH, tiny

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers import semantic
from vargen.tokenizers.distances import normalised
from vargen.tokenizers.product_levels import dependency

LEVELS = (1, 1, 2, 3, 4)
CLOSE = dict(atol=2e-5, rtol=2e-5)


class Given:
    """A codec whose latents are given, in the place of parameters of an encoder."""

    grid = (4, 4)

    def encode(self, params, images):
        return params["encoder"]


def arrays(name):
    """The file's arrays; latents [2, 4, 4, 16]."""
    a = dict(np.load(FOLDER / f"imagefolder_{name}.npz"))
    h = a["out/h"][..., 0].reshape(2, 8, 2, 4, 4)  # [B, c, G, h, w]
    return a, jnp.asarray(h.transpose(0, 3, 4, 2, 1).reshape(2, 4, 4, 16))


def nhwc(x):
    return np.moveaxis(x, 1, -1)


def build(name):
    """A tokenizer with their quantisers' parameters."""
    a, latents = arrays(name)
    common = dict(vocab=32, channels=16, groups=2, encoder=part("patch", patch=4))
    codebook = np.stack([a[f"sd/quantizes.{g}.embedding.weight"] for g in range(2)])
    if name == "vp":
        t, qparams = tokenizers.build(part("product_vq", **common), 16, 3), dict(codebook=codebook)
    else:
        options = dict(levels=LEVELS, dependency_weight=0.3, level_dropout=0.0)
        t = tokenizers.build(part("multiscale_product_vq", **options, **common), 16, 3)
        phi = [[f"sd/quantizes.{g}.quant_resi.qresi_ls.{i}." for i in range(4)] for g in range(2)]
        qparams = dict(
            codebook=codebook,
            phi_kernel=np.stack([[a[n + "weight"].transpose(2, 3, 1, 0) for n in row] for row in phi]),
            phi_bias=np.stack([[a[n + "bias"] for n in row] for row in phi]),
        )
    t = dataclasses.replace(t, codec=Given())
    return t, dict(encoder=latents, quantizer=jax.tree.map(jnp.asarray, qparams)), a


def run(t, params):
    images = jnp.zeros((2, 16, 16, 3))

    @jax.jit
    def both(params):
        codes = t.encode(params, images)
        return (
            codes,
            t.latents(params["quantizer"], codes),
            t.bottleneck(params, t.init_stats(), images, jax.random.key(0)),
        )

    return both(params)


def test_one_level():
    t, params, a = build("vp")
    codes, latents, (straight, loss, _, metrics) = run(t, params)
    for g in range(2):
        np.testing.assert_array_equal(codes[..., g], a[f"out/idx_{g}_0"])
        np.testing.assert_allclose(latents[..., 8 * g : 8 * g + 8], nhwc(a[f"out/fhat_{g}_0"]), **CLOSE)
    np.testing.assert_allclose(straight, latents, **CLOSE)
    np.testing.assert_allclose(metrics["codebook"], a["out/vq_loss"], rtol=1e-5)
    np.testing.assert_allclose(0.25 * metrics["commitment"], a["out/commit_loss"], rtol=1e-5)


def test_five_levels():
    t, params, a = build("ms")
    codes, latents, (straight, loss, _, metrics) = run(t, params)
    state, rows = t.start(2), [jnp.zeros((2, 0, 16))]
    for level, part_ in enumerate(t.split(codes)):
        state = t.absorb(params["quantizer"], state, part_, level)
        for g in range(2):
            np.testing.assert_array_equal(part_[..., g], a[f"out/idx_{g}_{level}"])
            np.testing.assert_allclose(
                state[..., 8 * g : 8 * g + 8], nhwc(a[f"out/fhat_{g}_{level}"]), **CLOSE
            )
        if level < 4:
            rows.append(t.resample(state, level + 1))
    np.testing.assert_allclose(latents, state, **CLOSE)
    np.testing.assert_allclose(jnp.concatenate(rows, axis=1), a["out/var_input"], **CLOSE)
    np.testing.assert_allclose(straight, latents, **CLOSE)
    np.testing.assert_allclose(metrics["codebook"], a["out/vq_loss"], rtol=2e-5)
    np.testing.assert_allclose(0.25 * 5 * metrics["commitment"], a["out/commit_loss"], rtol=2e-5)
    np.testing.assert_allclose(0.3 * metrics["dependency"], a["out/dependency_loss"], rtol=2e-5)
    expected = metrics["codebook"] + 0.25 * metrics["commitment"] + 0.3 * metrics["dependency"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["ms", "vp"])
def test_semantic_and_dependency_losses(name):
    """Of their last branch and the teacher's class token, both ways, at scale 1; with one level of unit vectors."""
    t, params, a = build(name)
    if name == "vp":
        a |= dict(np.load(FOLDER / "imagefolder_vp_semantic.npz"))
    latents = run(t, params)[1]
    own = jnp.mean(latents[..., 8:], axis=(1, 2))
    said = a["out/sem_class"] @ a["sd/quant_conv.weight"][:, :, 0, 0].T + a["sd/quant_conv.bias"]
    own, said = (normalised(x) if name == "vp" else x for x in (own, jnp.asarray(said)))
    np.testing.assert_allclose(0.1 * semantic.contrastive(own, said, 1.0), a["out/sem_loss"], rtol=2e-5)
    parts = jnp.moveaxis(latents.reshape(2, 4, 4, 2, 8), 3, 0)
    np.testing.assert_allclose(0.3 * dependency(parts), a["out/dependency_loss"], rtol=2e-5)


def test_levels_are_dropped():
    """The first half of a batch keeps as many levels as were drawn; losses and gradient are of what is kept."""
    t, params, a = build("ms")
    branch = t.branch
    qparams = jax.tree.map(lambda x: x[0], params["quantizer"])
    half = jnp.asarray(np.where(np.arange(4) < 2, a["in/dropout_rand"], 5))
    weights = nhwc(a["in/drop_g"])

    @jax.jit
    def loss(latents):
        f_hat, metrics, _ = branch.through(qparams, latents, half)
        total = metrics["codebook"] + 5 * 0.25 * metrics["commitment"]
        return total + jnp.sum(f_hat * weights), (f_hat, metrics)

    latents = nhwc(a["in/drop_f"])
    (_, (f_hat, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(latents)
    np.testing.assert_allclose(f_hat, nhwc(a["out/drop/fhat"]), **CLOSE)
    np.testing.assert_allclose(metrics["codebook"], a["out/drop/vq_loss"], rtol=2e-5)
    np.testing.assert_allclose(5 * 0.25 * metrics["commitment"], a["out/drop/commit_loss"], rtol=2e-5)
    np.testing.assert_allclose(gradient, nhwc(a["out/drop/df"]), **CLOSE)


def test_how_many_levels_are_kept():
    t = tiny("multiscale_vq", level_dropout=0.5, level_dropout_from=2)
    found = jax.jit(lambda key: t.kept(64, key))(jax.random.key(0))
    assert found.shape == (64,) and np.all(found[32:] == 3)
    assert set(np.asarray(found[:32]).tolist()) == {2, 3}
    assert t.kept(1, jax.random.key(0)) is None


@pytest.mark.slow
def test_dead_codes_are_revived_group_by_group():
    """Onto residuals of the group's own channels, which differ in size; codes in use stay."""
    t = tiny("multiscale_product_vq", vocab=8, phi_ratio=0.0, normalise=False)
    params, stats = jax.jit(t.init)(jax.random.key(0)), t.init_stats()
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 1), minval=-1)
    stats = dict(share=jnp.zeros((6, 8)).at[:, 0].set(1.0), updates=jnp.int32(9))
    moved, after = jax.jit(lambda p: t.revive(p, stats, images, jax.random.key(2), 5, 100))(params)
    before, now = params["quantizer"]["codebook"], moved["quantizer"]["codebook"]
    np.testing.assert_array_equal(now[:, 0], before[:, 0])
    assert np.all(after["share"][:, 1:] > 0) and after["share"].shape == (6, 8)
    parts = t.parted(t.codec.encode(params, images))
    for g in range(2):
        rest, found = parts[g], []
        for level in range(3):
            found.append(np.asarray(t.branch.resample(rest, level)).reshape(-1, 2))
            codes = t.branch._search(dict(codebook=before[g]), t.branch.resample(rest, level))
            rest = rest - t.branch._spread(dict(codebook=before[g]), codes, level)
        found = np.concatenate(found)
        for code in now[g, 1:]:
            assert np.min(np.abs(found - code).max(-1)) < 1e-5


def test_refused():
    with pytest.raises(UserError, match="tokenizer.groups: expected a divisor of 5 channels, found 2"):
        tiny("multiscale_product_vq", channels=5)
    with pytest.raises(UserError, match="tokenizer.level_dropout_from: expected at most 3 levels, found 4"):
        tiny("multiscale_product_vq", level_dropout_from=4)
    with pytest.raises(UserError, match="tokenizer.levels: expected the last to be the latent grid 4x4"):
        tokenizers.build(part("multiscale_product_vq", encoder=PATCH, levels=(1, 2, 3)), 16, 1)
