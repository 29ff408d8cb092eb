"""Published tokenizers without a generator, and VQGAN's transformer, whose one file holds both."""

import json
import pathlib

import jax
import numpy as np
import published_shapes as shapes
import pytest
from golden import FOLDER

import vargen
from vargen import config, models, tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.interop import (
    bsqvit,
    checkpoint,
    files,
    flextok,
    hart_tokenizer,
    mapping,
    mar_kl,
    open_magvit2,
    semanticist,
    systems,
    taming_mingpt,
    var_tokenizer,
)

# The golden of each system.
ALONE = dict(vqgan="taming_vqgan", open_magvit2="open_magvit2", ibq="ibq")


@pytest.mark.parametrize("name", ALONE)
def test_import_and_export(name, tmp_path):
    """The file becomes a model that decodes as the authors' does, and its arrays come back."""
    file = FOLDER / f"{ALONE[name]}.npz"
    with np.load(file) as golden:
        shape, codes, expected = golden["in/img"].shape, golden["out/indices"], golden["out/dec"]
        beside = {"loss.discriminator.weight": np.ones(3, np.float32)}
        arrays = {k.removeprefix("sd/"): golden[k] for k in golden.files if k.startswith("sd/")}
    files.write(tmp_path / "last.npz", arrays | beside)
    c = checkpoint.import_checkpoint(name, tmp_path / "model", tokenizer=tmp_path / "last.npz", image_size=32)
    model = vargen.load(tmp_path / "model")
    whole = tokenizers.build(c.tokenizer, shape[2:], shape[1])
    found = jax.jit(whole.decode)(model.tokenizer_params, codes.reshape(len(expected), -1))
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected, atol=1e-4 * np.abs(expected).max())
    checkpoint.export_checkpoint(name, tmp_path / "model", tokenizer=tmp_path / "again.npz")
    again = files.read(tmp_path / "again.npz")
    assert set(again) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(again[key], array, err_msg=key)


def arrays_of(golden, prefix=""):
    """The weights in a golden, every name with the prefix."""
    with np.load(FOLDER / f"{golden}.npz") as file:
        return {prefix + k.removeprefix("sd/"): file[k] for k in file.files if k.startswith("sd/")}


def same_arrays(found, expected):
    assert set(found) == set(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


def test_bsqvit(tmp_path):
    """The authors' codes make their pictures; the size is the table of places'; arrays and buffers come back."""
    arrays = arrays_of("bsqvit")
    for name, bits in (("basis", 12), ("group_basis", 4)):
        arrays[f"quantize.{name}"] = 2 ** np.arange(bits - 1, -1, -1)
    files.write(tmp_path / "last.npz", {f"module.module.{k}": v for k, v in arrays.items()})
    c = checkpoint.import_checkpoint("bsqvit", tmp_path / "model", tokenizer=tmp_path / "last.npz")
    assert (c.data.image_size, c.tokenizer.groups, c.tokenizer.entropy_bits) == (32, 1, 4)
    c.tokenizer.encoder.heads = 4  # in every published file they have 64 channels
    whole, model = tokenizers.build(c.tokenizer, 32, 3), vargen.load(tmp_path / "model")
    with np.load(FOLDER / "bsqvit.npz") as golden:
        found = jax.jit(whole.decode)(model.tokenizer_params, golden["out/indices"])
        np.testing.assert_allclose(np.moveaxis(found, -1, 1), golden["out/dec_raw"], atol=1e-4)
    checkpoint.export_checkpoint("bsqvit", tmp_path / "model", tokenizer=tmp_path / "again.npz")
    same_arrays(files.read(tmp_path / "again.npz"), arrays)


@pytest.mark.parametrize("channels, groups, bits", [(18, 1, 1), (18, 1, 9), (36, 4, 1)])
def test_sizes_of_bsqvit(channels, groups, bits):
    """Of the published configs: patches of 8 pixels, 12 layers of width 768 at either end."""
    encoder = part(
        "vit",
        patch=8,
        width=768,
        layers=12,
        heads=12,
        positions="learned",
        mlp="gelu",
        norm_in=True,
        eps=1e-5,
    )
    encoder.out_width = 3072
    expected = part("bsq", channels=channels, groups=groups, beta=0.25 * channels, encoder=encoder)
    if bits != 9:
        expected.entropy_bits = bits
    own = tokenizers.build(expected, 256, 3)
    like = dict(mapping.flatten(jax.eval_shape(own.init, jax.random.key(0))))
    found = mapping.source_shapes(bsqvit.table(own), like)
    assert found["quantize.group_basis"] == (bits,)
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in found.items()}
    assert bsqvit.part(arrays) == expected and bsqvit.image_size(arrays) == 256


@pytest.mark.slow
def test_hart(tmp_path):
    """VAR's arrays, called as HART's: the same codes and pictures as VAR's tokenizer; the arrays come back."""
    plain, prefixed = arrays_of("var_tokenizer"), arrays_of("var_tokenizer", "vae.")
    files.write(tmp_path / "hart.npz", prefixed | {"disc.main.0.weight": np.ones(3, np.float32)})
    given = dict(tokenizer=tmp_path / "hart.npz")
    cell = 2 ** sum(k.endswith("downsample.conv.weight") for k in plain)
    with pytest.raises(UserError, match=f"--image-size: expected {16 * cell} or .* pixels, found 1024"):
        checkpoint.import_checkpoint("hart", tmp_path / "model", **given)
    c = checkpoint.import_checkpoint("hart", tmp_path / "model", **given, image_size=16 * cell)
    assert c.tokenizer.name == "hybrid_multiscale" and c.tokenizer.levels == hart_tokenizer.PUBLISHED[16]
    model = vargen.load(tmp_path / "model")
    options = var_tokenizer.part(plain, hart_tokenizer.PUBLISHED[16])
    other = tokenizers.build(options, 16 * cell, 3)
    params = systems.read(var_tokenizer, other, plain)
    images = jax.random.uniform(jax.random.key(0), (1, 16 * cell, 16 * cell, 3), minval=-1)
    codes = jax.jit(other.encode)(params, images)
    np.testing.assert_array_equal(jax.jit(model.tokenizer.encode)(model.tokenizer_params, images), codes)
    checkpoint.export_checkpoint("hart", tmp_path / "model", tokenizer=tmp_path / "again.npz")
    hits = "vae.quantize.ema_vocab_hit_SV"
    again = dict(files.read(tmp_path / "again.npz"))
    assert again.pop(hits).shape[0] == 10
    same_arrays(again, {k: v for k, v in prefixed.items() if k != hits})


@pytest.mark.slow
def test_semanticist(tmp_path):
    """Two files are one tokenizer, which encodes as the authors' does; parts may have been compiled, and the table of
    places need not be there; the arrays come back in one file."""
    arrays = arrays_of("semanticist")
    encoder = part("conv", width=32, multipliers=(1, 1, 1, 1), blocks=1)
    around = tokenizers.build(part("kl", encoder=encoder, channels=4), 32, 3)
    params = jax.device_get(around.init(jax.random.key(0)))
    outer = mapping.write(mar_kl.table(around), params)
    files.write(tmp_path / "kl16.npz", outer | {"loss.logvar": np.ones((), np.float32)})
    own = {k.replace("dit.", "dit._orig_mod."): v for k, v in arrays.items() if k != "dit.pos_embed"}
    files.write(tmp_path / "tok.npz", own | {"dit._orig_mod.projector.0.bias": np.ones(3, np.float32)})
    given, target = dict(tokenizer=tmp_path / "tok.npz"), tmp_path / "model"
    with pytest.raises(
        UserError, match="--outer: expected the file of the autoencoder around .*, found none"
    ):
        checkpoint.import_checkpoint("semanticist", target, **given)
    with pytest.raises(
        UserError, match="--outer: expected none, as ibq's tokenizer is of pixels, found a fi"
    ):
        checkpoint.import_checkpoint("ibq", target, **given, outer=tmp_path / "kl16.npz")
    c = checkpoint.import_checkpoint("semanticist", target, **given, outer=tmp_path / "kl16.npz")
    assert c.data.image_size == 32 and c.tokenizer.inner.encoder.decoder.draws == (4, 4, 4)
    # In every published file they have 64 channels.
    c.tokenizer.inner.encoder.heads = c.tokenizer.inner.encoder.decoder.heads = 4
    whole, model = tokenizers.build(c.tokenizer, 32, 3), vargen.load(target)
    jax.tree.map(np.testing.assert_array_equal, model.tokenizer_params["outer"], params)
    with np.load(FOLDER / "semanticist.npz") as golden:
        images, slots = 2 * golden["in/img"].transpose(0, 2, 3, 1) - 1, golden["out/slots"]
    found = jax.jit(whole.encode)(model.tokenizer_params, images)
    np.testing.assert_allclose(found, slots, atol=2e-5 * np.abs(slots).max())
    checkpoint.export_checkpoint("semanticist", target, tokenizer=tmp_path / "again.npz")
    again = dict(files.read(tmp_path / "again.npz"))
    rows, added = "encoder.pos_embed", dict(arrays)
    added[rows] = arrays[rows].copy()
    added[rows][:, :1] += added.pop("encoder.cls_token")
    added[rows][:, -6:] += added.pop("encoder.slot_embed")
    assert not again.pop("encoder.cls_token").any() and not again.pop("encoder.slot_embed").any()
    np.testing.assert_allclose(again.pop("dit.pos_embed"), added.pop("dit.pos_embed"), atol=1e-7)
    same_arrays(again, added | {f"vae.{k}": v for k, v in outer.items()})
    files.write(tmp_path / "both.npz", again | {"encoder.slot_embed": arrays["encoder.slot_embed"]})
    with pytest.raises(UserError, match="missing arrays: encoder.cls_token"):
        checkpoint.import_checkpoint("semanticist", tmp_path / "other", tokenizer=tmp_path / "both.npz")


@pytest.mark.parametrize("size", ["b", "xl"])
def test_sizes_of_semanticist(size):
    """Of the published configs, but for the loss of features, for which the decoder's blocks are two stacks."""
    c = config.load(f"published_registers:semanticist_{size}")
    expected = c.tokenizer.copy_and_resolve_references()
    del expected.inner.encoder.decoder["shown_after"]
    shown, own = (tokenizers.build(x, 256, 3) for x in (c.tokenizer, expected))
    arrays = {}
    for tokenizer in (shown, own):
        like = dict(mapping.flatten(jax.eval_shape(tokenizer.init, jax.random.key(0))))
        found = mapping.source_shapes(semanticist.table(tokenizer), like)
        assert not arrays or found == arrays
        arrays = found
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in arrays.items()}
    assert semanticist.part(zeros) == expected and semanticist.image_size(zeros) == 256


def test_levels_of_hart():
    """Of the published file, whose pixels are 16 to a cell: those of 1024, or of the size that is asked for."""
    arrays = {f"vae.encoder.down.{i}.block.0.conv1.weight": np.zeros(1) for i in range(5)}
    for size, levels, slots in ((0, 14, 9451), (1024, 14, 9451), (512, 10, 2240), (256, 10, 680)):
        found = hart_tokenizer.levels(arrays, size)
        assert (len(found), sum(n * n for n in found)) == (levels, slots)
    with pytest.raises(UserError, match="--image-size: expected 256 or 512 or 1024 pixels, found 384"):
        hart_tokenizer.levels(arrays, 384)


SAID = dict(
    vae=dict(scaling_factor=0.5),
    encoder=dict(module_dict=dict(enc_transformer=dict(head_dim=16))),
    decoder=dict(
        module_dict=dict(dec_transformer=dict(head_dim=16), dec_time_embedder=dict(max_timestep=1.0))
    ),
    regularizer=dict(levels=[8, 5, 5]),
)


def flextok_file(folder, said=None):
    """The golden's tokenizer and a VAE whose latents are an eighth of 64 pixels, as the authors' file has them."""
    names = {"enc_patch_embedder": "enc_patch_emb", "dec_noise_patch_embedder": "dec_noise_patch_emb"}
    arrays = arrays_of("flextok")
    for long, short in names.items():
        arrays = {k.replace(long, short): v for k, v in arrays.items()}
    rng = np.random.default_rng(0)
    for name, shape in shapes.sd_kl((32, 32, 32, 32), 4).items():
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
            name = name.replace(f"attentions.0.{old}.", f"attentions.0.{new}.")
        arrays[f"vae.vae.{name}"] = rng.normal(size=shape, scale=0.1).astype(np.float32)
    files.write(folder / "model.safetensors", arrays)
    if said is not None:
        (folder / "config.json").write_text(json.dumps(said))
    return dict(tokenizer=folder / "model.safetensors", image_size=64), arrays


def test_flextok(tmp_path):
    """Within its VAE it is the golden's tokenizer; all comes back but places that no patch has."""
    given, arrays = flextok_file(tmp_path, SAID)
    c = checkpoint.import_checkpoint("flextok", tmp_path / "model", **given)
    assert (c.tokenizer.name, c.tokenizer.outer.scale, c.tokenizer.inner.levels) == ("within", 0.5, (8, 5, 5))
    assert c.tokenizer.inner.encoder.decoder.guidance == 7.5
    model = vargen.load(tmp_path / "model")
    t, params = model.tokenizer, model.tokenizer_params
    with np.load(FOLDER / "flextok.npz") as golden:
        lat, tokens = golden["in/lat"].transpose(0, 2, 3, 1), golden["out/tokens"]
    np.testing.assert_array_equal(jax.jit(t.inner.encode)(params, lat), tokens)
    assert jax.eval_shape(t.decode, params, tokens).shape == (2, 64, 64, 3)
    checkpoint.export_checkpoint("flextok", tmp_path / "model", tokenizer=tmp_path / "again.npz")
    again = dict(files.read(tmp_path / "again.npz"))
    for name in ("encoder.module_dict.enc_posemb_module", "decoder.module_dict.dec_patches_posemb_module"):
        arrays[f"{name}.posembs"] = arrays[f"{name}.posembs"][..., :4]
    same_arrays(again, arrays)


@pytest.mark.parametrize(
    "said, message",
    [
        (None, "expected config.json beside it, which tells what arrays don't, found none"),
        (dict(SAID, vae={}), "vae.scaling_factor: expected a number above 0, found None"),
        (dict(SAID, regularizer={}), "regularizer.levels: expected whole numbers, found None"),
        (dict(SAID, encoder={}), "expected one head_dim of both transformers, found 64 and 16"),
        (dict(SAID, encoder={}, decoder={}), "head_dim: expected a divisor of the width 32, found 64"),
    ],
)
def test_what_flextok_is_told(said, message, tmp_path):
    given, _ = flextok_file(tmp_path, said)
    with pytest.raises(UserError, match=message):
        checkpoint.import_checkpoint("flextok", tmp_path / "model", **given)


@pytest.mark.parametrize("size", ["d12_d12", "d18_d28"])
def test_sizes_of_flextok(size):
    """What a file of a published size holds tells the config of that size, with what config.json says beside it; how
    often and with what guidance it is drawn is nothing to the file."""
    c = config.load(f"published_registers:flextok_{size}")
    c.tokenizer.inner.encoder.decoder.update(dict(steps=7, guidance=1.0))
    own = models.build_tokenizer(c)
    like = dict(mapping.flatten(jax.eval_shape(own.init, jax.random.key(0))))
    found = mapping.source_shapes(flextok.table(own), like)
    width, wide = (64 * int(n[1:]) for n in size.split("_"))
    assert found["decoder.module_dict.dec_transformer.blocks.11.adaLN_modulation.1.weight"] == (
        12 * wide,
        wide,
    )
    assert found["encoder.module_dict.enc_posemb_module.posembs"] == (2, 1, width, 16)
    assert found["vae.vae.decoder.mid_block.attentions.0.to_out.0.weight"] == (512, 512)
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in found.items()}
    inferred = systems.infer(systems.system("flextok"), arrays, beside=flextok.said(own))
    assert inferred.data.image_size == 256
    assert not checkpoint.differences(own, models.build_tokenizer(inferred))


def test_fixed_places_of_flextok(tmp_path):
    """The authors' sines, [1, D, h, w], become a table, and come back; both ends must have them."""
    _, arrays = flextok_file(tmp_path)
    arrays = {k: v for k, v in arrays.items() if not k.startswith("vae.")}
    first, second = (
        "encoder.module_dict.enc_posemb_module.posembs",
        flextok.DECODER + "patches_posemb_module.posembs",
    )
    sines = np.random.default_rng(0).normal(size=(1, 32, 4, 4)).astype(np.float32)
    with pytest.raises(UserError, match="expected places of patches of one kind at both ends, found two"):
        flextok.part(arrays | {first: sines})
    arrays |= {first: sines, second: 2 * sines}
    part = flextok.part(arrays)
    flextok.tell(part, SAID)
    tokenizer = tokenizers.build(part, 8, 4)
    params = systems.read(flextok, tokenizer, arrays)
    table = params["decoder"]["patches"]["places"]
    np.testing.assert_array_equal(table[4 * 1 + 3], 2 * sines[0, :, 1, 3])
    same_arrays(mapping.write(flextok.table(tokenizer), params), arrays)
    with pytest.raises(UserError, match=r"posembs: expected places .*, found shape \(3, 2\)"):
        flextok.part(arrays | {first: np.zeros((3, 2))})


@pytest.mark.parametrize("name", [*ALONE, "bsqvit", "hart", "flextok"])
def test_there_is_no_generator(name, tmp_path):
    message = f"--generator: expected none, as {name} is a tokenizer alone, found a file"
    file = FOLDER / f"{ALONE.get(name, 'ibq')}.npz"
    with pytest.raises(UserError, match=message):
        checkpoint.import_checkpoint(name, tmp_path / "model", tokenizer=file, generator=file)
    with pytest.raises(UserError, match=message):
        checkpoint.export_checkpoint(name, tmp_path / "model", generator=tmp_path / "g.npz")
    assert not list(pathlib.Path(tmp_path).iterdir())


def test_one_file_of_both(tmp_path):
    """A class has the row of the code of its number; the arrays come back, and so does each half of the file."""
    arrays = {}
    with np.load(FOLDER / "taming_mingpt.npz") as golden:
        arrays |= {k.removeprefix("sd/"): golden[k] for k in golden.files if k.startswith("sd/")}
    with np.load(FOLDER / "taming_vqgan.npz") as golden:
        arrays |= {k.replace("sd/", "first_stage_model."): golden[k] for k in golden.files if k[:3] == "sd/"}
    arrays[taming_mingpt.PLACES] = arrays[taming_mingpt.PLACES][:, :16]
    beside = {"transformer.blocks.0.attn.mask": np.ones((1, 1, 16, 16), np.float32)}
    beside["first_stage_model.loss.perceptual_loss.lin0.model.1.weight"] = np.ones(3, np.float32)
    file, both = tmp_path / "last.npz", ("generator", "tokenizer")
    files.write(file, arrays | beside)
    c = checkpoint.import_checkpoint("taming", tmp_path / "model", **dict.fromkeys(both, file), heads=4)
    assert (c.data.image_size, c.data.num_classes, c.sampling.top_k) == (8, 32, 600)
    model = vargen.load(tmp_path / "model")
    classes = model.generator_params["condition"]["classes"]["table"]
    np.testing.assert_array_equal(classes, arrays[taming_mingpt.CODES])
    assert not model.generator_params["feed"]["places"]["table"][16].any()
    assert model.sample([3, 5], jax.random.key(0)).shape == (2, 8, 8, 3)
    halves = {name: tmp_path / f"{name}.npz" for name in both}
    checkpoint.export_checkpoint("taming", tmp_path / "model", **halves)
    again = dict(files.read(halves["generator"])) | dict(files.read(halves["tokenizer"]))
    assert set(again) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(again[key], array, err_msg=key)


def test_other_tokenizers_are_refused():
    tokenizer = tokenizers.build(
        part("bsq", channels=4, encoder=part("vit", patch=4, width=16, heads=1)), 16, 3
    )
    with pytest.raises(
        UserError, match="expected positions=learned, mlp=gelu, norm_in=True, found positions=rope"
    ):
        systems.read(bsqvit, tokenizer, {})
    for encoder, found in (
        (part("adaptive", width=16, groups=16), "groups=16"),
        (part("conv", width=32, multipliers=(1,)), "ConvEncoder"),
    ):
        tokenizer = tokenizers.build(part("lfq", channels=4, encoder=encoder), 16, 3)
        with pytest.raises(UserError, match=f"expected the encoder adaptive with groups=32, found {found}"):
            systems.read(open_magvit2, tokenizer, {})
