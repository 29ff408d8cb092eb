"""The published tokenizers at tiny sizes: the authors' outputs (float32, CPU) from the authors' weights.

`var_tokenizer`, `llamagen_vq` and `mar_kl` hold what FoundationVision/VAR, FoundationVision/LlamaGen and
LTH14/mar computed with random weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import golden

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.interop import llamagen_vq, mar_kl, var_tokenizer
from vargen.tokenizers.multiscale import phi_table

TOLERANCE = 1e-5  # of the largest value; measured 2e-6 to 6e-6 over whole networks


def close(found, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def var(meta):
    return tokenizers.build(
        part(
            "multiscale_vq",
            vocab=meta["V"],
            channels=meta["Cvae"],
            levels=meta["patch_nums"],
            beta=meta["beta"],
            encoder=part("conv", width=meta["ch"], projection=3),
        ),
        meta["img"],
        3,
    )


def test_var():
    arrays, weights, meta = golden("var_tokenizer")
    t = var(meta)
    levels = len(meta["patch_nums"])

    @jax.jit
    def run(params, images):
        latents = t.codec.encode(params, images)
        codes, _ = t.quantise(params["quantizer"], latents)
        sums, inputs = [t.start(len(images))], []
        for level, level_codes in enumerate(t.split(codes)):
            inputs.append(t.resample(sums[-1], level))
            sums.append(t.absorb(params["quantizer"], sums[-1], level_codes, level))
        straight, loss, _, _ = t.bottleneck(params, t.init_stats(), images, jax.random.key(0))
        image = t.decode_latents(params, sums[-1])
        return latents, codes, sums[1:], jnp.concatenate(inputs[1:], axis=1), image, straight, loss

    params = var_tokenizer.from_torch(weights, t)
    latents, codes, sums, inputs, image, straight, loss = run(params, arrays["in/img"])
    close(latents, arrays["out/enc_f"])
    for level, level_codes in enumerate(t.split(codes)):
        np.testing.assert_array_equal(level_codes, arrays[f"out/idx_{level}"])
    for level in range(levels):
        close(sums[level], arrays[f"out/fhat_{level}"], 1e-6)
    close(inputs, arrays["out/var_input"], 1e-6)
    close(image, arrays["out/dec_unclamped"])
    close(straight, arrays["out/vq_fhat_ste"], 1e-6)
    np.testing.assert_allclose(loss, arrays["out/vq_loss"], rtol=1e-6)


def test_var_phi_tables():
    arrays, _, _ = golden("var_tokenizer")
    for name, expected in arrays.items():
        if name.startswith("out/phi_index/K"):
            count, levels = map(int, name.removeprefix("out/phi_index/K").split("_S"))
            assert phi_table(levels, count) == tuple(expected), name
    assert phi_table(10, 0) == tuple(arrays["out/phi_index/nonshared_S10"])


@pytest.mark.parametrize("phi", [0, 1, 2])
def test_var_names_follow_the_sharing_of_phi(phi):
    t = tokenizers.build(
        part("multiscale_vq", vocab=4, channels=2, levels=(1, 2), phi=phi, encoder=part("conv", width=4)),
        32,
        3,
    )
    sources = [
        s for e in var_tokenizer.table(t) for s in e.sources if "quant_resi" in s and s.endswith("weight")
    ]
    names = {0: ["{}", "{}"], 1: ["qresi"], 2: ["qresi_ls.{}", "qresi_ls.{}"]}[phi]
    assert sources == [f"quantize.quant_resi.{n.format(i)}.weight" for i, n in enumerate(names)]


def test_llamagen():
    arrays, weights, meta = golden("llamagen_vq")
    encoder = part("conv", width=meta["ch"], multipliers=meta["ch_mult"], hidden=meta["z_channels"])
    t = tokenizers.build(
        part("vq", vocab=meta["codebook"], channels=meta["dim"], entropy_weight=0.1, encoder=encoder),
        (24, 16),
        3,
    )

    @jax.jit
    def run(params, images):
        codes = t.encode(params, images)
        _, loss, _, metrics = t.bottleneck(params, t.init_stats(), images, jax.random.key(0))
        latents = t.latents(params["quantizer"], codes)
        return t.codec.encode(params, images), codes, latents, t.decode(params, codes), loss, metrics

    params = llamagen_vq.from_torch(weights, t)
    encoded, codes, latents, image, loss, metrics = run(params, arrays["in/img"])
    close(encoded, arrays["out/prequant"])
    np.testing.assert_array_equal(codes, arrays["out/ids"])
    close(latents, arrays["out/quant"], 1e-6)
    close(image, arrays["out/rec"])
    parts = [arrays[f"out/{k}_loss"] for k in ("vq", "commit", "entropy")]  # the authors' are weighted
    found = [metrics["codebook"], 0.25 * metrics["commitment"], 0.1 * metrics["entropy"]]
    np.testing.assert_allclose(found, parts, rtol=2e-5)
    np.testing.assert_allclose(loss, sum(parts), rtol=2e-5)


def test_mar():
    arrays, weights, meta = golden("mar_kl")
    encoder = part("conv", width=meta["ch"], multipliers=meta["ch_mult"], decoder_attention=False)
    t = tokenizers.build(part("kl", channels=meta["embed_dim"], encoder=encoder), (32, 24), 3)

    @jax.jit
    def run(params, images):
        mean = t.encode(params, images)
        kl = t.bottleneck(params, t.init_stats(), images, jax.random.key(0))[3]["kl"]
        return t.moments(params, images), mean, t.decode(params, mean), kl

    params = mar_kl.from_torch(weights, t)
    moments, mean, image, kl = run(params, arrays["in/img"])
    count = meta["embed_dim"]
    np.testing.assert_array_equal(moments[..., :count], mean)
    for found, name in ((mean, "mean"), (moments[..., count:], "std")):
        close(found.reshape(arrays[f"out/{name}"].shape) / 0.2325, arrays[f"out/{name}"])
    close(image, arrays["out/dec"])
    np.testing.assert_allclose(kl, arrays["out/kl"].mean(), rtol=1e-5)


def test_wrong_weights_are_named():
    _, weights, meta = golden("var_tokenizer")
    t = var(meta)
    fewer = {k: v for k, v in weights.items() if k != "quant_conv.bias"}
    with pytest.raises(UserError, match=r"missing arrays: quant_conv\.bias; unexpected arrays: none"):
        var_tokenizer.from_torch(fewer, t)
    with pytest.raises(UserError, match=r"missing arrays: none; unexpected arrays: head\.weight"):
        var_tokenizer.from_torch({**weights, "head.weight": np.zeros(3)}, t)
    cut = {**weights, "quantize.embedding.weight": weights["quantize.embedding.weight"][:5]}
    with pytest.raises(
        UserError, match=r"quantize\.embedding\.weight \(expected \(64, 8\).*found \(5, 8\)\)"
    ):
        var_tokenizer.from_torch(cut, t)
