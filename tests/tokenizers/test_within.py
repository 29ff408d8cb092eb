"""A tokenizer of another's latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import part, tiny

from vargen import weights_file
from vargen.errors import UserError


@pytest.fixture(scope="module")
def parts():
    t = tiny("within")
    images = jax.random.uniform(jax.random.key(1), (3, 16, 16, 1), minval=-1.0)
    params = jax.jit(t.init)(jax.random.key(0))
    params["outer"]["quantizer"]["scale"] *= 3.0
    return t, params, images


@pytest.mark.slow
def test_both_ways(parts):
    """Through both tokenizers, by hand."""
    t, params, images = parts
    latents = np.asarray(t.outer.encode(params["outer"], images)).reshape(3, 8, 8, 4)
    codes = np.asarray(t.encode(params, images))
    np.testing.assert_array_equal(codes, t.inner.encode(params, jnp.asarray(latents)))
    decoded = np.asarray(t.inner.decode(params, codes)).reshape(3, 64, 4)
    np.testing.assert_allclose(t.decode(params, codes), t.outer.decode(params["outer"], decoded), atol=1e-6)


def test_the_outer_one_stands_still(parts):
    t, params, images = parts

    @jax.jit
    @jax.grad
    def gradient(params):
        return t.loss(params, {**t.init_stats()}, images, jax.random.key(2), 0, dict(l2=1.0))[0]

    found = gradient(params)
    assert not any(np.any(x) for x in jax.tree.leaves(found["outer"]))
    assert all(np.any(x) for x in jax.tree.leaves(found["decoder"]))
    with pytest.raises(
        UserError, match="losses.adversarial: expected 0 for a tokenizer of latents, found 0.5"
    ):
        settings = dict(l2=1.0, adversarial=0.5)
        t.loss(params, t.init_stats(), images, jax.random.key(2), 0, settings, adversarial=jnp.mean)


@pytest.mark.slow
def test_starts_from_a_file(parts, tmp_path):
    t, params, _ = parts
    file = tmp_path / "params.safetensors"
    weights_file.write(file, jax.tree.map(np.asarray, params["outer"]))
    started = tiny("within", weights=str(file)).fit([])
    jax.tree.map(np.testing.assert_array_equal, started["outer"], params["outer"])
    assert started.keys() == params.keys()
    weights_file.write(file, jax.tree.map(np.asarray, params["encoder"]))
    with pytest.raises(
        UserError, match="weights: expected the parameters of tokenizer.outer, found others in .*"
    ):
        tiny("within", weights=str(file)).fit([])
    with pytest.raises(
        UserError, match="weights: expected the file of the outer autoencoder's parameters, found none"
    ):
        t.fit([])
    with pytest.raises(UserError, match="weights: expected a file, found none at /nowhere"):
        tiny("within", weights="/nowhere").fit([])


LEVELS = part("multiscale_vq", levels=(1, 4), encoder=part("patch", patch=2))


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(outer=part("vq")), "tokenizer.outer: expected a part kl, found vq"),
        (
            dict(inner=LEVELS),
            "tokenizer.inner: expected an autoencoder of one level or of registers, found multi",
        ),
    ],
)
def test_refused(options, message):
    with pytest.raises(UserError, match=message):
        tiny("within", **options)
