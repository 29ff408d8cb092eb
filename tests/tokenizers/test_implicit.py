"""Codes without a table against their authors' outputs, all codes written out, and float64 formulas."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import golden, tiny
from systems import some_slow

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers.distances import normalised
from vargen.tokenizers.implicit import bit_entropies

NAMES = ["fsq", "lfq", "bsq"]


def straight(t, z):
    """Latents straight through, as `bottleneck` makes them of features [..., C]; the codes."""
    squeezed = t.squeezed(z)
    places = t.places(squeezed)
    scaled = squeezed * t.scale()
    return scaled + jax.lax.stop_gradient(t.values(places) - scaled), t.codes(places)


@pytest.mark.parametrize("shift, name", [("atanh", "luc"), ("tan", "goog")])
@pytest.mark.parametrize("case, levels", [(0, (8, 5, 5, 5)), (1, (3, 5, 4))])
def test_fsq_is_its_authors(shift, name, case, levels):
    """The paper's appendix as Google's notebook has it, which truncates where a code's number is rounded, and
    lucidrains'."""
    rest, _, _ = golden("fsq")
    z, weight = rest[f"in/z_{case}"], rest[f"in/g_{case}"]
    t = tiny("fsq", levels=levels, shift=shift)
    values, codes = straight(t, z)
    gradient = jax.grad(lambda z: jnp.sum(weight * straight(t, z)[0]))(jnp.asarray(z))
    np.testing.assert_allclose(values, rest[f"out/{name}_{case}_q"], atol=1e-6)
    np.testing.assert_allclose(gradient, rest[f"out/{name}_{case}_dz"], atol=2e-6)
    expected = rest[f"out/{name}_{case}_idx"]
    assert np.sum(codes != expected) <= (name == "goog")


@pytest.mark.parametrize("case, sphere, sharpness", [("group_l2", True, 1.0), ("group_raw", False, 2.0)])
def test_bsq_is_its_authors(case, sphere, sharpness):
    """Their full code's first channel is its highest bit, and their commitment is a sum over channels."""
    rest, _, _ = golden("bsq_quantizer")
    size, beta, zeta, gammas = 12, 0.3, 1.1, (0.7, 0.9)
    t = tiny(
        "bsq" if sphere else "lfq",
        channels=size,
        groups=1,
        beta=beta * size,
        entropy_weight=zeta * gammas[0] / sharpness,
        diversity=gammas[1] / gammas[0],
        entropy_bits=4,
        sharpness=sharpness,
    )
    # What comes to their quantiser is on the sphere already.
    z = normalised(jnp.asarray(rest["in/z_raw"])) if sphere else jnp.asarray(rest["in/z_raw"])

    def loss(z):
        values = t.values(t.places(z))
        return t.regularised(z.reshape(-1, size), values.reshape(-1, size))[0]

    def whole(z):
        scaled = z * t.scale()
        return loss(z) + jnp.sum(
            rest["in/g"] * (scaled + jax.lax.stop_gradient(t.values(t.places(z)) - scaled))
        )

    np.testing.assert_allclose(loss(z), rest[f"out/{case}/loss"], rtol=2e-6)
    np.testing.assert_allclose(jax.grad(whole)(z), rest[f"out/{case}/dz"], atol=3e-6)
    sure, used = bit_entropies(4 * sharpness * t.size * z.reshape(-1, size), 4)
    np.testing.assert_allclose(sure, rest[f"out/{case}/persample_entropy"], rtol=2e-6)
    np.testing.assert_allclose(used, rest[f"out/{case}/cb_entropy"], rtol=2e-6)
    if sphere:
        _, apart = bit_entropies(4 * sharpness * t.size * z.reshape(-1, size), 1)
        np.testing.assert_allclose(apart, rest["out/analytical_l2/cb_entropy"], rtol=2e-6)
        np.testing.assert_array_equal(t.codes(t.places(z)[..., ::-1]), rest[f"out/{case}/indices"])


def test_entropies_of_all_codes():
    """In float64, over all 2^5 codes: softmax(2 s latent code) by the distances to each."""
    z = np.random.default_rng(0).normal(size=(7, 5))
    codes = np.array(list(itertools.product((-1, 1), repeat=5)), np.float64)
    logits = 2 * 1.5 * z @ codes.T
    law = np.exp(logits - logits.max(1, keepdims=True))
    law /= law.sum(1, keepdims=True)
    mean = law.mean(0)
    found = bit_entropies(jnp.asarray(4 * 1.5 * z, jnp.float32), 5)
    expected = -np.mean(np.sum(law * np.log(law), 1)), -np.sum(mean * np.log(mean))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert bit_entropies(jnp.asarray(4 * 1.5 * z, jnp.float32), 2)[1] > expected[1]  # a bound


@pytest.mark.parametrize("name", NAMES)
def test_every_code_is_its_values_code(name):
    """Codes to values and back, all of them; what a code's values are squeezed from gives it again."""
    t = tiny(name)
    codes = np.arange(t.vocab)
    content = np.stack([codes, codes[::-1]], -1) if t.groups > 1 else codes
    values = t.decoded(content)
    assert len(np.unique(values, axis=0)) == t.vocab
    np.testing.assert_array_equal(t.codes(t.places(values / t.scale())), content)
    vectors = t.vectors({}, content)
    np.testing.assert_allclose(np.sum(vectors, axis=-2) if t.groups > 1 else vectors, values)
    assert t.slot.shape == ((2,) if name == "lfq" else ()) and t.slot.vocab == t.vocab


@pytest.mark.parametrize("name", some_slow(NAMES, ["fsq"]))
def test_training_and_encoding_agree(name):
    """What the decoder is trained on is what the codes decode to; the gradient is the latents'."""
    t = tiny(name)
    params = jax.jit(t.init)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1)

    @jax.jit
    def both(params):
        latents, loss, stats, metrics = t.bottleneck(params, t.init_stats(), images, None)
        return latents, t.latents(params["quantizer"], t.encode(params, images)), stats, metrics

    latents, again, stats, metrics = both(params)
    np.testing.assert_allclose(latents, again, atol=1e-6)
    assert latents.shape == (2, 4, 4, t.channels) and stats["share"].shape == (t.groups, t.vocab)
    np.testing.assert_allclose(np.sum(stats["share"], axis=1), 1, atol=1e-5)
    assert metrics["codebook_use"] > 0
    known = jnp.arange(16) < 5
    part_of = t.latents({}, t.encode(params, images), known[None]).reshape(2, 16, -1)
    assert np.all(part_of[:, 5:] == 0) and np.any(part_of[:, :5] != 0)


@pytest.mark.parametrize(
    "options, words",
    [
        (
            dict(name="fsq", levels=(8, 5), vocab=64),
            "tokenizer.vocab: expected 40, the product of levels (8, 5), found 64",
        ),
        (dict(name="fsq", levels=(1, 5)), "tokenizer.levels"),
        (
            dict(name="fsq", levels=(64,) * 5),
            "tokenizer.levels: expected at most 2^24 codes, found 1073741824; fewer levels, and tokenizer.groups",
        ),
        (
            dict(name="lfq", channels=40),
            "tokenizer.groups: expected codes of at most 24 bits, found one of 40; 4 groups make codes of 10, "
            "several a slot, which the heads depth and staged factorise",
        ),
        (dict(name="bsq", channels=12, groups=5), "tokenizer.groups: expected a divisor of 12 channels, found 5"),
    ],
)  # fmt: skip
def test_refused(options, words):
    with pytest.raises(UserError) as refused:
        tokenizers.build(part(**options, encoder=part("patch", patch=4)), 16, 1)
    assert words in str(refused.value) and "\n" not in str(refused.value)
