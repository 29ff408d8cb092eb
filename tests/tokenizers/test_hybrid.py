"""HART's hybrid tokenizer in training, against the authors' quantiser.

Codes, both kinds of latents and a generator's inputs: tests/interop/test_parity.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import FOLDER, golden, tiny

from vargen.interop.parity import hart_tokenizer
from vargen.interop.parity.golden import Golden


@pytest.fixture(scope="module")
def authors():
    """The golden's arrays, its tokenizer over latents, and parameters."""
    arrays, _, _ = golden("hart_tokenizer")
    return arrays, *hart_tokenizer.built(Golden(FOLDER / "hart_tokenizer.npz"))


@pytest.mark.parametrize(
    "share, name", [pytest.param(1.0, "out/fhat_cont", marks=pytest.mark.slow), (0.0, "out/fhat_disc")]
)
def test_training(authors, share, name):
    """What is decoded in training, and their loss; the gradient reaches the encoder straight through both."""
    arrays, t, params = authors
    t = dataclasses.replace(t, continuous=share)
    f = jnp.asarray(arrays["in/f"])

    def bottleneck(f):
        latents, loss, _, _ = t.bottleneck(params, t.init_stats(), f, jax.random.key(0))
        return latents, loss

    (latents, loss), pull = jax.vjp(bottleneck, f)
    np.testing.assert_allclose(latents, arrays[name], atol=1e-5)
    np.testing.assert_allclose(loss, arrays["out/vq_loss"], rtol=1e-5)
    np.testing.assert_allclose(pull((jnp.ones_like(f), jnp.zeros(())))[0], 1.0, atol=1e-6)


@pytest.mark.slow
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
