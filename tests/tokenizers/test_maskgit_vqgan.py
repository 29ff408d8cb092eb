"""MaskGIT's VQGAN: what bytedance/1d-tokenizer's modeling/modules/maskgit_vqgan.py computed (float32, CPU) with
random weights, on images that are not square."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import golden

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.interop import mapping, maskgit_vqgan, systems

TINY = part("pooled", width=8, multipliers=(1, 2), blocks=1, groups=4)


def test_sizes_are_told_and_weights_written_as_they_were():
    _, weights, meta = golden("maskgit_vqgan")
    t = tokenizers.build(maskgit_vqgan.part(weights), (24, 16), 3)
    encoder = t.codec.encoder
    assert (encoder.width, encoder.multipliers) == (meta["hidden_channels"], tuple(meta["channel_mult"]))
    assert encoder.blocks == meta["num_res_blocks"]
    assert (t.vocab, t.channels) == (meta["codebook"], meta["z_channels"])
    written = mapping.write(maskgit_vqgan.table(t), systems.read(maskgit_vqgan, t, weights))
    assert written.keys() == weights.keys()
    for name, expected in weights.items():
        np.testing.assert_array_equal(written[name], expected, err_msg=name)


def test_published_size():
    # Counted in the authors' module at the sizes of their PretrainedTokenizer (modeling/titok.py).
    t = tokenizers.build(
        part("vq", vocab=1024, channels=256, normalise=False, encoder=part("pooled")), 256, 3
    )
    assert t.codec.grid == (16, 16)
    params = jax.eval_shape(t.init, jax.random.key(0))
    assert sum(a.size for a in jax.tree.leaves(params)) == 54_515_587


@pytest.mark.slow
def test_training_reaches_all_parameters():
    t = tokenizers.build(part("vq", vocab=8, channels=4, normalise=False, encoder=TINY), (8, 4), 1)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: rng.normal(size=a.shape, scale=0.3).astype(np.float32),
        jax.eval_shape(t.init, jax.random.key(0)),
    )
    images = rng.uniform(-1, 1, (2, 8, 4, 1)).astype(np.float32)
    settings = dict(l2=1.0, adversarial=0.5, adaptive=True)

    def loss(params):
        total, (_, metrics, _) = t.loss(
            params,
            t.init_stats(),
            images,
            jax.random.key(0),
            1,
            settings,
            adversarial=lambda image: jnp.mean(jnp.sin(image)),
        )
        return total, metrics["adaptive_weight"]

    def by_definition(params):
        """Both gradients at the last layer's kernel through the whole decoder."""
        decoder, latents = params["decoder"], t.latents(params["quantizer"], t.encode(params, images))

        def decode(kernel):
            layer = dict(decoder["conv_out"], kernel=kernel)
            return t.codec.decode(dict(decoder=dict(decoder, conv_out=layer)), latents)

        image, back = jax.vjp(decode, decoder["conv_out"]["kernel"])
        at_image = jnp.stack([2 * (image - images), jnp.cos(image)]) / image.size
        fit, fool = jax.vmap(back)(at_image)[0]
        return jnp.linalg.norm(fit) / jnp.linalg.norm(fool)

    run = jax.jit(lambda params: (*jax.grad(loss, has_aux=True)(params), by_definition(params)))
    gradient, weight, expected = run(params)
    for name, value in mapping.flatten(gradient):
        assert np.isfinite(value).all() and np.any(value), name
    np.testing.assert_allclose(weight, expected, rtol=1e-3)


def test_bad_sizes_are_refused():
    with pytest.raises(UserError, match="2 levels need an image size divisible by 2, found 8x5"):
        tokenizers.build(part("vq", encoder=TINY), (8, 5), 1)
    with pytest.raises(UserError, match="a divisor of all widths, found 32 and 48"):
        tokenizers.build(part("vq", encoder=part("pooled", width=48)), 16, 1)
    t = tokenizers.build(part("vq", encoder=TINY), (8, 4), 1)
    with pytest.raises(UserError, match=r"images: expected \[B, 8, 4, 1\], found \[2, 4, 8, 1\]"):
        t.encode(jax.eval_shape(t.init, jax.random.key(0)), jnp.zeros((2, 4, 8, 1)))


@pytest.mark.parametrize(
    "gone",
    [
        "encoder.conv_in.weight",
        "encoder.down.0.block.0.conv1.weight",
        "quantize.embedding.weight",
    ],
)
def test_other_files_are_refused(gone):
    _, weights, _ = golden("maskgit_vqgan")
    with pytest.raises(UserError) as error:
        maskgit_vqgan.part({k: v for k, v in weights.items() if k != gone})
    assert str(error.value).startswith(f"MaskGIT VQGAN: expected the array {gone}, found 115 others (")


@pytest.mark.parametrize(
    "options, message",
    [
        (part("vq", normalise=True, encoder=part("pooled")), "vq with normalise=False, found normalise=True"),
        (
            part("vq", normalise=False, encoder=part("conv")),
            "encoder pooled with groups=32, found ConvEncoder",
        ),
        (part("kl", encoder=part("pooled")), "vq with normalise=False, found KL"),
        (
            part("vq", normalise=False, encoder=part("pooled", groups=16)),
            "encoder pooled with groups=32, found groups=16",
        ),
    ],
)
def test_what_the_authors_names_cannot_hold_is_refused(options, message):
    with pytest.raises(UserError) as error:
        maskgit_vqgan.table(tokenizers.build(options, 16, 3))
    assert message in str(error.value)
