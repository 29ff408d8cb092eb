"""D-AR's files become a model and come back; sizes that the importer reads off the published arrays."""

import jax
import numpy as np
import pytest
from parameters import noisy

import vargen
from vargen import config, models
from vargen.errors import UserError
from vargen.interop import checkpoint, dar, dar_tokenizer, files, mapping, systems


def tiny():
    """Of both: heads have 64 channels, tokens are 256, as in the published files."""
    c = config.load("published_drawn:dar")
    c.data.image_size, c.data.num_classes, c.compute_dtype = 16, 5, "float32"
    encoder = c.tokenizer.encoder
    encoder.update(patch=8, width=64, layers=2, heads=1)
    encoder.decoder.update(patch=4, layers=2, told_layers=1, shown_after=1, frequencies=64)
    c.tokenizer.update(vocab=32, channels=4)
    c.model.update(layers=2, width=64, mlp_width=96)
    c.mixer.heads = 1
    return c


@pytest.mark.slow
def test_import_and_export(tmp_path):
    """What was trained with rows that are shown comes back as the authors' arrays, whose tables have spare rows."""
    c = tiny()
    built = dict(zip(("tokenizer", "generator"), systems.build(c), strict=True))
    modules = dict(tokenizer=dar_tokenizer, generator=dar)
    written = {}
    for name, own in built.items():
        params = jax.device_get(noisy(own.init, 0))
        written[name] = mapping.write(modules[name].table(own), params)
    expected = written["tokenizer"]["query_embedding.weight"]
    assert expected.shape == (1024, 8) and not expected[256:].any() and expected[:256].any()
    beside = {"diff_decoder.net.repa_out.0.weight": np.ones((3, 3), np.float32)}
    files.write(tmp_path / "tokenizer.npz", written["tokenizer"] | beside)
    files.write(tmp_path / "generator.npz", written["generator"] | {"freqs_cis": np.ones(3, np.float32)})
    given = {name: tmp_path / f"{name}.npz" for name in written}
    found = checkpoint.import_checkpoint("dar", tmp_path / "model", **given, image_size=16)
    assert found.mixer.rope == "sequence" and found.sampling.guidance_start == 1.2
    model = vargen.load(tmp_path / "model")
    assert not checkpoint.differences(model.generator, built["generator"])
    # Its blocks are one stack there.
    like = c.copy_and_resolve_references()
    like.tokenizer.encoder.decoder.shown_after = 0
    assert not checkpoint.differences(model.tokenizer, models.build_tokenizer(like))
    again = {name: tmp_path / f"again_{name}.npz" for name in written}
    checkpoint.export_checkpoint("dar", tmp_path / "model", **again)
    for name, arrays in written.items():
        back = files.read(again[name])
        assert {*back} == {*arrays}
        for key, array in arrays.items():
            np.testing.assert_array_equal(back[key], array, err_msg=key)


@pytest.mark.parametrize("size", ["dar", "dar_xl"])
def test_published_sizes(size):
    """What is read off the arrays of the config's sizes computes as the config's does, but for the rows shown."""
    c = config.load(f"published_drawn:{size}")
    c.tokenizer.encoder.decoder.shown_after = 0
    arrays = {}
    for name, own in zip(("tokenizer", "generator"), systems.build(c), strict=True):
        module = dict(tokenizer=dar_tokenizer, generator=dar)[name]
        like = dict(mapping.flatten(jax.eval_shape(own.init, jax.random.key(0))))
        shapes = mapping.source_shapes(module.table(own), like)
        arrays[name] = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    found = systems.infer(systems.system("dar"), arrays["tokenizer"], arrays["generator"])
    assert (found.data.image_size, found.data.num_classes) == (256, 1000)
    for name in ("name", "order", "feed", "mixer", "head", "sampling"):
        assert found[name] == c[name], name
    assert {k: found.model[k] for k in c.model} == c.model.to_dict()
    for own, other in zip(systems.build(c), systems.build(found), strict=True):
        assert not checkpoint.differences(own, other)


def test_refused():
    c = config.load("registers:dar")
    with pytest.raises(
        UserError, match="D-AR tokenizer: expected vq over registers with places=rotary_patches, gates, no "
    ):
        dar_tokenizer.table(models.build_tokenizer(c))
