"""Published tokenizers without a generator, and VQGAN's transformer, whose one file holds both."""

import pathlib

import jax
import numpy as np
import pytest
from golden import FOLDER

import vargen
from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.interop import checkpoint, files, open_magvit2, systems, taming_mingpt

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


@pytest.mark.parametrize("name", ALONE)
def test_there_is_no_generator(name, tmp_path):
    message = f"--generator: expected none, as {name} is a tokenizer alone, found a file"
    file = FOLDER / f"{ALONE[name]}.npz"
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
    for encoder, found in (
        (part("adaptive", width=16, groups=16), "groups=16"),
        (part("conv", width=32, multipliers=(1,)), "ConvEncoder"),
    ):
        tokenizer = tokenizers.build(part("lfq", channels=4, encoder=encoder), 16, 3)
        with pytest.raises(UserError, match=f"expected the encoder adaptive with groups=32, found {found}"):
            systems.read(open_magvit2, tokenizer, {})
