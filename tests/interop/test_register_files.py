"""ImageFolder's, GigaTok's and ResTok's files become models and come back; LARP's table is for Python."""

import jax
import numpy as np
import pytest
from golden import FOLDER

import vargen
from vargen import config, models, tokenizers
from vargen.errors import UserError
from vargen.interop import checkpoint, files, gigatok, imagefolder, larp, mapping, restok, systems

GOLDENS = dict(imagefolder="imagefolder_vp", gigatok="gigatok")
# What their files hold too.
BESIDE = dict(
    imagefolder=("semantic_model.norm.weight", "encoder.lvl1LC", "quantizes.0.ema_vocab_hit_SV"),
    gigatok=("s1to2decoder.distill_mlp.0.bias",),
)


def arrays_of(golden):
    with np.load(FOLDER / f"{golden}.npz") as file:
        return {k.removeprefix("sd/"): file[k] for k in file.files if k.startswith("sd/")}


@pytest.mark.parametrize("name", GOLDENS)
def test_import_and_export(name, tmp_path):
    """The codes are those of the arrays, and the arrays that are written mean the same parameters."""
    arrays = arrays_of(GOLDENS[name])
    files.write(tmp_path / "last.npz", arrays | {x: np.ones(3, np.float32) for x in BESIDE[name]})
    c = checkpoint.import_checkpoint(name, tmp_path / "model", tokenizer=tmp_path / "last.npz")
    assert c.data.image_size == dict(imagefolder=64, gigatok=16)[name]
    own, module = tokenizers.build(c.tokenizer, c.data.image_size, 3), systems.system(name).tokenizer
    params, model = systems.read(module, own, arrays), vargen.load(tmp_path / "model")
    images = jax.random.uniform(jax.random.key(0), (2, *own.image_size, 3), minval=-1)
    codes = jax.jit(own.encode)(params, images)
    assert len(np.unique(codes)) > 3
    np.testing.assert_array_equal(jax.jit(model.tokenizer.encode)(model.tokenizer_params, images), codes)
    checkpoint.export_checkpoint(name, tmp_path / "model", tokenizer=tmp_path / "again.npz")
    again = dict(files.read(tmp_path / "again.npz"))
    again.pop("quantize.codebook_used", None)
    assert {k: np.shape(v) for k, v in again.items()} == {k: v.shape for k, v in arrays.items()}
    jax.tree.map(np.testing.assert_array_equal, systems.read(module, own, again), params)


def published(module, tokenizer):
    """Zeros of the shapes of an authors' file of these sizes."""
    like = dict(mapping.flatten(jax.eval_shape(tokenizer.init, jax.random.key(0))))
    found = mapping.source_shapes(module.table(tokenizer), like)
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in found.items()}


@pytest.mark.parametrize("row", ["imagefolder", "gigatok_ss", "gigatok_xlxxl"])
def test_published_sizes(row):
    """What is read off the arrays of the config's sizes computes as the config's does."""
    module = systems.system(row.partition("_")[0]).tokenizer
    c = config.load(f"published_registers:{row}")
    own = models.build_tokenizer(c)
    arrays = published(module, own)
    part = module.part(arrays)
    if row != "imagefolder":
        part.encoder.shown_after = 3
    found = tokenizers.build(part, module.image_size(arrays), 3)
    assert module.image_size(arrays) == 256 and not checkpoint.differences(found, own)


def test_restok():
    """What is read off arrays of the published sizes computes as the config does; tiny ones come back as they were, but
    for scales, which are ones then, and the maps to a teacher's features, which are no part of a tokenizer."""
    own = models.build_tokenizer(config.load("published_levels:restok"))
    arrays = published(restok, own)
    assert arrays["encoder.level_embedding.3"].shape == (1, 1024)
    assert not checkpoint.differences(tokenizers.build(restok.part(arrays), 256, 3), own)
    without = {name: x for name, x in arrays.items() if name != restok.TAUGHT}
    assert "taught" not in restok.part(without).encoder.decoder
    arrays = arrays_of("restok")
    part = restok.part(arrays)
    part.encoder.stem.groups, part.encoder.heads = 4, 2
    tokenizer = tokenizers.build(part, 16, 3)
    params = systems.read(restok, tokenizer, arrays)
    again = mapping.write(restok.table(tokenizer), params)
    assert {*arrays} - {*again} == {"vf_proj.weight", "vf_proj_dec.weight"}
    assert {k: v.shape for k, v in again.items()} == {k: arrays[k].shape for k in again}
    jax.tree.map(np.testing.assert_array_equal, systems.read(restok, tokenizer, again), params)
    part.encoder.stem.standard = False
    with pytest.raises(UserError, match="ResTok tokenizer: expected a stem with standard=True, found False"):
        restok.table(tokenizers.build(part, 16, 3))


def test_one_code_a_place():
    """Of XQ-GAN's V: one quantiser, under another name."""
    c = config.load("published_registers:imagefolder")
    own = dict(c.tokenizer.encoder, tokens=256, abreast=1, layers=2)
    c.tokenizer = config.part("vq", encoder=own, channels=64, revive_every=0)
    tokenizer = models.build_tokenizer(c)
    arrays = published(imagefolder, tokenizer)
    assert arrays["quantize.embedding.weight"].shape == (16384, 64)
    found = tokenizers.build(imagefolder.part(arrays), 256, 3)
    assert not checkpoint.differences(found, tokenizer)


def test_levels_that_are_not_known():
    with pytest.raises(
        UserError, match="ImageFolder tokenizer: expected levels .* the last of side 11, found 4"
    ):
        imagefolder.part(arrays_of("imagefolder_ms"))


@pytest.mark.parametrize("module", [gigatok, imagefolder, larp, restok])
def test_other_tokenizers_are_refused(module):
    encoder = config.part("registers", tokens=4, square=True, patch=4, width=16, heads=1)
    tokenizer = tokenizers.build(config.part("fsq", encoder=encoder, levels=(4, 4)), 16, 3)
    with pytest.raises(UserError, match=f"{module.WHAT}: expected the .*, found another"):
        systems.read(module, tokenizer, {})
    encoder.update(placed=True, anchor=True)
    tokenizer = tokenizers.build(config.part("fsq", encoder=encoder, levels=(4, 4)), 16, 3)
    if module is imagefolder:
        with pytest.raises(UserError, match="expected the tokenizer vq, product_vq or .*, found FSQ"):
            systems.read(module, tokenizer, {})
