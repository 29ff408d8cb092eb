"""Registers seen a window at a time, and patches that look across at them, as D-AR has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny
from parameters import noisy

from vargen.config import part
from vargen.errors import UserError

WINDOWS = dict(groups=4, release="window")


def registers(decoder, **options):
    own = dict(patch=4, width=16, layers=1, heads=2, tokens=8, sees="causal") | options
    return part("registers", decoder=decoder, **own)


def flow(**options):
    return part("flow", **dict(steps=4, **WINDOWS) | options)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (3, 16, 16, 1), minval=-1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "looks, solver",
    [
        ("beside", "adams"),
        *(pytest.param("across", x, marks=pytest.mark.slow) for x in ("adams", "euler")),  # DAR has them
    ],
)
def test_decoding_by_windows(looks, solver, images):
    """The steps written out in float64, shifted and of a scale; and of the first registers, where the way ends."""
    decoder = flow(
        steps=8, solver=solver, shift=2.0, scale=0.6, looks=looks, told_layers=1, patch=8, counts="up"
    )
    t = tiny("fsq", encoder=registers(decoder))
    params = noisy(t.init, 0)
    latents = t.latents(params["quantizer"], t.encode(params, images))

    @jax.jit
    def estimate(x, time, window):
        window = jnp.broadcast_to(window, (3, 2))
        return t.codec.decoder.apply({"params": params["decoder"]}, latents, x, time, window=window)

    x = np.float64(np.broadcast_to(jax.random.normal(jax.random.key(0), (16, 16, 1)), images.shape))
    shares = 2 * (1 - np.arange(9) / 8) / (1 + (1 - np.arange(9) / 8))
    last, pictures = 0.0, {}
    for i in range(8):
        group = min(int(np.floor(i / 8 * 4 + 0.5)), 3)  # the nearest
        v = (x - 0.6 * np.float64(estimate(x, shares[i], np.arange(2) + 2 * group))) / shares[i]
        step = v if solver == "euler" or i == 0 else 1.5 * v - 0.5 * last
        pictures[group] = (x - shares[i] * step) / 0.6
        x, last = x - (shares[i] - shares[i + 1]) * step, v
    decode = jax.jit(t.codec.decode)
    np.testing.assert_allclose(decode(params, latents), pictures[3], atol=5e-4 * np.abs(pictures[3]).max())
    for n, group in ((5, 1), (2, 0)):
        found = decode(params, latents[:, :, :n])
        np.testing.assert_allclose(found, pictures[group], atol=5e-4 * np.abs(pictures[group]).max())
    assert t.codec.prefixes and np.abs(pictures[1] - pictures[3]).max() > 1e-2


@pytest.mark.parametrize("told_layers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_what_a_window_sees(told_layers, images):
    """The registers of its group, through the blocks before also earlier ones; never those that come later."""
    t = tiny("fsq", encoder=registers(flow(looks="across", told_layers=told_layers)))
    params = noisy(t.init, 0)
    latents = jax.random.normal(jax.random.key(2), (3, 1, 8, 3))
    s, noise = jnp.array([0.99, 0.55, 0.1]), jax.random.normal(jax.random.key(3), images.shape)
    np.testing.assert_array_equal(t.codec.seen(s, None)["window"], [[0, 1], [4, 5], [6, 7]])

    @jax.jit
    def drafted(latents):
        features, weights = t.codec.noised(params, latents, None, images, s, noise)
        return t.codec.last(params, features), weights

    found, weights = drafted(latents)
    np.testing.assert_allclose(weights, 1 / s**2, rtol=1e-6)
    for changed in range(8):
        other = drafted(latents.at[:, :, changed].add(1.0))[0]
        moved = np.abs(other - found).max(axis=(1, 2, 3)) > 1e-5
        seen = np.array([[0, 1], [4, 5], [6, 7]])
        expected = (changed <= seen[:, 1]) if told_layers else (seen == changed).any(axis=1)
        np.testing.assert_array_equal(moved, expected, err_msg=str(changed))


@pytest.mark.slow
def test_what_the_encoder_adds(images):
    """Rows of few numbers are a product; blocks whose gates are closed add nothing; norms around blocks and products of
    latents may be without parameters; patches without a table of places are told apart by turning."""
    options = dict(
        rank=3, gates=True, outer_affine=False, latent_bias=False, places="rotary_patches", mlp="silu"
    )
    t = tiny("fsq", encoder=registers(part("direct"), norm_patches=True, **options))
    params = jax.jit(t.init)(jax.random.key(0))
    own = params["encoder"]
    assert own["registers"].shape == (8, 3) and {*own["latents_out"]} == {"kernel"}
    assert {*params["decoder"]["registers"]["rows_in"]} == {"kernel"}
    assert {*own} == {"patches", "registers", "registers_in", "blocks", "latents_out"}
    assert {*own["patches"]} == {"rows_in"} and "norm_out" not in params["decoder"]
    rows = np.float64(own["registers"]) @ own["registers_in"]["kernel"] + own["registers_in"]["bias"]
    rows = (rows - rows.mean(axis=1, keepdims=True)) / np.sqrt(rows.var(axis=1, keepdims=True) + 1e-6)
    encode = jax.jit(t.codec.encode)
    expected = np.broadcast_to(rows @ np.float64(own["latents_out"]["kernel"]), (3, 8, 3))
    np.testing.assert_allclose(encode(params, images)[:, 0], expected, atol=1e-5)
    gates = own["blocks"]["layers"]["gates"]
    opened = dict(
        params, encoder=dict(own, blocks=dict(layers=dict(own["blocks"]["layers"], gates=gates + 1.0)))
    )
    found = encode(opened, images)
    assert np.abs(found[0] - found[1]).max() > 1e-2
    # The patch to the right of each; of bare products and without turning registers would say the same.
    assert np.abs(encode(opened, jnp.roll(images, 4, axis=2)) - found).max() > 1e-4


@pytest.mark.parametrize(
    "encoder, message",
    [
        (registers(flow(groups=1)), "decoder.release: needs groups above 1 for window, found 1"),
        (registers(flow(looks="across", time="row")), "decoder.looks: needs time adaln .*, found time row"),
        (registers(flow(looks="across", apart=True)), "decoder.looks: needs .* for across, found apart"),
        (registers(flow(patch=5)), "decoder.patch: expected a divisor of the image's 16x16 pixels, found 5"),
        (registers(flow(shown_after=1)), "decoder.shown_after: expected fewer than 1 blocks, found 1"),
        (
            registers(part("direct"), places="rotary_patches", heads=8),
            "encoder.heads: expected heads of a multiple of 4 channels for places rotary_patches, found 2",
        ),
        (
            registers(
                part("direct"), places="rotary_patches", tokens=9, sees="all", square=True, placed=True
            ),
            "encoder.places: rotary_patches needs placed=False, found another",
        ),
    ],
)
def test_refused(encoder, message):
    with pytest.raises(UserError, match=message):
        tiny("fsq", encoder=encoder)
