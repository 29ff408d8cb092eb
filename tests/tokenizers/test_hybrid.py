"""HART's hybrid tokenizer against the authors' quantiser: codes, losses, both latents, a generator's inputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import golden, tiny

from vargen import tokenizers
from vargen.config import part
from vargen.tokenizers.autoencoder import flat


@dataclasses.dataclass(frozen=True)
class Latents:
    """A codec whose pictures are the latents themselves."""

    grid: tuple[int, int]

    def encode(self, params, images):
        return images

    def decode(self, params, latents):
        return latents


@pytest.fixture(scope="module")
def authors():
    """The golden's arrays, its tokenizer over latents, and parameters."""
    arrays, weights, meta = golden("hart_tokenizer")
    c = meta["config"]
    options = part(
        "hybrid_multiscale",
        encoder=part("patch", patch=1, width=8, blocks=0),
        levels=tuple(c["v_patch_nums"]),
        vocab=c["vocab_size"],
        channels=c["z_channels"],
        beta=c["beta"],
        phi=c["share_quant_resi"],
        phi_ratio=c["quant_resi"],
        centre_weight=0.0,
    )
    t = tokenizers.build(options, c["v_patch_nums"][-1], c["z_channels"])
    t = dataclasses.replace(t, codec=Latents(t.codec.grid))
    phis = [weights[f"quantize.quant_resi.qresi_ls.{i}.weight"].transpose(2, 3, 1, 0) for i in range(t.phi)]
    quantizer = dict(
        codebook=weights["quantize.embedding.weight"],
        phi_kernel=np.stack(phis),
        phi_bias=np.stack([weights[f"quantize.quant_resi.qresi_ls.{i}.bias"] for i in range(t.phi)]),
    )
    return arrays, t, dict(encoder={}, decoder={}, quantizer=jax.tree.map(jnp.asarray, quantizer))


def test_codes_and_latents(authors):
    """Codes equal; both kinds of latents, and what the codes leave, within 1e-5 of numbers of about 5."""
    arrays, t, params = authors
    f = jnp.asarray(arrays["out/f"])
    codes = t.encode(params, f)
    for level, own in enumerate(t.split(codes)):
        np.testing.assert_array_equal(np.ravel(own), arrays[f"out/idx_{level}"])
        np.testing.assert_array_equal(own, arrays[f"out/hb_{level}"])
    np.testing.assert_allclose(t.latents(params["quantizer"], codes), arrays["out/fhat_disc"], atol=1e-5)
    rest = t.residual(params, f, codes)
    # Theirs is before the last level's codes are taken off.
    last = t.vectors(params["quantizer"], t.split(codes)[-1])
    np.testing.assert_allclose(rest + last, arrays["out/hb_frest"], atol=1e-5)
    whole = t.decode_hybrid(params, codes, rest)
    np.testing.assert_allclose(whole, arrays["out/fhat_cont"], atol=1e-5)
    np.testing.assert_allclose(whole, f, atol=1e-5)


def test_a_generators_inputs(authors):
    """The picture so far, level by level; the last level's vectors, codes' and residual's together, without phi."""
    arrays, t, params = authors
    f = jnp.asarray(arrays["out/f"])
    codes = t.encode(params, f)
    f_hat, quantizer = t.start(2), params["quantizer"]
    for level, own in enumerate(t.split(codes)[:-1]):
        f_hat = t.absorb(quantizer, f_hat, own, level)
        np.testing.assert_allclose(f_hat, arrays[f"out/ar_fhat_{level}"], atol=1e-5)
        np.testing.assert_allclose(
            t.resample(f_hat, level + 1), flat(arrays[f"out/ar_next_{level}"]), atol=1e-5
        )
    rest = t.residual(params, f, codes)
    np.testing.assert_allclose(t.completed(quantizer, codes, rest), arrays["out/ar_fhat_4"], atol=1e-5)


@pytest.mark.parametrize("share, name", [(1.0, "out/fhat_cont"), (0.0, "out/fhat_disc")])
def test_training(authors, share, name):
    """What is decoded in training, and their loss; the gradient reaches the encoder straight through both."""
    arrays, t, params = authors
    t = dataclasses.replace(t, continuous=share)
    f = jnp.asarray(arrays["out/f"])

    def bottleneck(f):
        latents, loss, _, _ = t.bottleneck(params, t.init_stats(), f, jax.random.key(0))
        return latents, loss

    (latents, loss), pull = jax.vjp(bottleneck, f)
    np.testing.assert_allclose(latents, arrays[name], atol=1e-5)
    np.testing.assert_allclose(loss, arrays["out/vq_loss"], rtol=1e-5)
    np.testing.assert_allclose(pull((jnp.ones_like(f), jnp.zeros(())))[0], 1.0, atol=1e-6)


def test_half_of_the_examples():
    """Each example is decoded from one of the two kinds of latents, about as many from each."""
    t = tiny("hybrid_multiscale")
    params = jax.jit(t.init)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (64, 16, 16, 1), minval=-1)
    latents = t.bottleneck(params, t.init_stats(), images, jax.random.key(2))[0]
    codes = t.encode(params, images)
    both = t.codec.encode(params, images), t.latents(params["quantizer"], codes)
    found = [np.abs(latents - x).max((1, 2, 3)) < 1e-5 for x in both]
    np.testing.assert_array_equal(found[0], ~found[1])
    assert 20 < found[0].sum() < 44
    whole = t.decode_hybrid(params, codes, t.residual(params, images, codes))
    np.testing.assert_allclose(whole, t.decode_latents(params, both[0]), atol=1e-5)
