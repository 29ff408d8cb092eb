"""TiTok's files: both kinds of tokenizers and the generator are recognised, and come back as they were."""

import jax
import numpy as np
import pytest
from parameters import noisy

import vargen
from vargen import config, models
from vargen.config import part
from vargen.errors import UserError
from vargen.interop import checkpoint, files, mapping, systems, titok, titok_tokenizer

PIXELS = part("pooled", width=32, multipliers=(1, 1, 1), blocks=1)
DIRECT = dict(
    proxies=part("direct", codes=24, pixel_channels=16, pixels=PIXELS),
    pixels=part("direct", width=128, layers=1, heads=2, smoothed=True),
    texts=part("direct", smoothed=True, text_tokens=3, text_channels=7),
)


def tiny(decoder, quantiser):
    """A config of four tokens of 16x16 pixels; heads have 64 channels, as in every published file."""
    c = config.load("titok:l32" if decoder == "proxies" else "titok:s128")
    c.data.image_size, c.data.num_classes, c.compute_dtype = 16, 5, "float32"
    own = dict(tokens=4, patch=4, width=64, layers=2, heads=1, decoder=DIRECT[decoder])
    encoder = part(**c.tokenizer.encoder.to_dict() | own | dict(scrambled=decoder == "proxies"))
    c.tokenizer = (
        part("kl", encoder=encoder, channels=6, scale=1.0)
        if quantiser == "kl"
        else part("vq", encoder=encoder, vocab=16, channels=6, normalise=decoder == "proxies", revive_every=0)
    )
    c.model.update(dict(layers=2 if decoder == "proxies" else 3, width=32, mlp_width=64))
    c.mixer.heads, c.order.steps = 2, 4
    return c


@pytest.mark.parametrize(
    "decoder, quantiser, suffix",
    [
        ("proxies", "vq", ".bin"),
        pytest.param("pixels", "vq", ".safetensors", marks=pytest.mark.slow),
        ("pixels", "kl", ".safetensors"),
        ("texts", "kl", ".safetensors"),
    ],
)
def test_import_and_export(decoder, quantiser, suffix, tmp_path):
    if suffix == ".bin":
        pytest.importorskip("torch")
    c = tiny(decoder, quantiser)
    tokenizer = models.build_tokenizer(c)
    params = noisy(tokenizer.init, 0)
    if quantiser == "kl":
        params["quantizer"]["scale"] = np.ones(6, np.float32)
    parts = dict(tokenizer=(titok_tokenizer, tokenizer, params))
    if quantiser == "vq":
        generator = models.build_generator(c, tokenizer)
        parts["generator"] = (titok, generator, noisy(generator.init, 1))
    written = {name: mapping.write(m.table(own), jax.device_get(p)) for name, (m, own, p) in parts.items()}
    # What is only ever added up is apart in their files.
    moved = np.float32(0.5)
    for name in ("encoder.class_embedding", "encoder.latent_token_positional_embedding"):
        written["tokenizer"][name] = written["tokenizer"][name] + moved
    written["tokenizer"]["encoder.positional_embedding"][0] -= moved
    written["tokenizer"]["latent_tokens"] = written["tokenizer"]["latent_tokens"] - moved
    extra = {"quantize.embed_prob": np.zeros(16, np.float32)} if decoder == "pixels" else {}
    given = {name: tmp_path / f"{name}{suffix}" for name in written}
    for name, arrays in written.items():
        files.write(given[name], arrays | (extra if name == "tokenizer" else {}))
    found = checkpoint.import_checkpoint("titok", tmp_path / "model", **given, image_size=16, heads=2)
    assert found.tokenizer == c.tokenizer
    model = vargen.load(tmp_path / "model")
    images = jax.random.uniform(jax.random.key(3), (2, 16, 16, 3), minval=-1.0)
    z = tokenizer.codec.encode(params, images)
    np.testing.assert_allclose(
        tokenizer.codec.encode(model.tokenizer_params, images), z, atol=2e-5 * np.abs(z).max()
    )
    if decoder == "texts":
        text = jax.random.normal(jax.random.key(4), (2, 3, 7))
        found = model.reconstruct(images, text)
        expected = tokenizer.codec.told(
            params, tokenizer.latents(params["quantizer"], model.encode(images)), text
        )
        np.testing.assert_allclose(found, np.clip(expected, -1, 1), atol=1e-4)
        assert np.abs(found - model.reconstruct(images)).max() > 1e-2
        with pytest.raises(
            UserError, match=r"text: expected floats \[2, 3, 7\], .*, found an array \[2, 7, 3\]"
        ):
            model.reconstruct(images, text.swapaxes(1, 2))
    else:
        with pytest.raises(
            UserError, match="text: expected none, as this tokenizer's decoder reads no captions"
        ):
            model.reconstruct(images, np.zeros((2, 3, 7)))
    if quantiser == "vq":
        assert model.sample([3, 4], jax.random.key(0)).shape == (2, 16, 16, 3)
    again = {name: tmp_path / f"again_{name}{suffix}" for name in written}
    checkpoint.export_checkpoint("titok", tmp_path / "model", **again)
    for name, (module, own, _) in parts.items():
        exported = files.read(again[name])
        assert set(exported) == set(written[name])
        like = systems.read(module, own, exported)
        jax.tree.map(np.testing.assert_array_equal, like, systems.read(module, own, written[name]))


def test_other_models_are_refused():
    c = tiny("pixels", "vq")
    c.tokenizer.encoder.anchor = False
    with pytest.raises(
        UserError, match="expected the encoder registers with anchor, norm_in and decoder direct"
    ):
        titok_tokenizer.table(models.build_tokenizer(c))
    c = tiny("pixels", "vq")
    c.tokenizer = part("fsq", encoder=c.tokenizer.encoder, levels=(4, 4))
    with pytest.raises(UserError, match="TiTok tokenizer: expected the tokenizer vq or kl, found"):
        titok_tokenizer.table(models.build_tokenizer(c))
    arrays = {titok.WORDS: np.zeros((18, 32)), titok.PLACES: np.zeros((5, 32))}
    with pytest.raises(UserError, match="more words than the tokenizer's 16 codes, found 18"):
        titok.fill(tiny("pixels", "vq"), arrays)
