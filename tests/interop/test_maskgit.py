"""MaskGIT's published files."""

import pathlib

import chex
import numpy as np

from vargen.interop import files, mapping, maskgit_tokenizer, maskgit_vqgan, systems

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "maskgit.npz"


def test_published_files(tmp_path):
    """The generator's and the tokenizer's as Flax writes them, without a suffix: sizes and arrays come back."""
    s = systems.system("maskgit")
    weights = {n.removeprefix("sd/"): x for n, x in np.load(GOLDEN).items() if n.startswith("sd/")}
    # The tokenizer of a golden that has other names.
    golden = np.load(GOLDEN.with_name("maskgit_vqgan.npz"))
    other = {n.removeprefix("sd/"): x for n, x in golden.items() if n.startswith("sd/")}
    c = systems.infer(systems.system("rar"), other)
    expected = systems.read(maskgit_vqgan, systems.build(c)[0], other)
    tokenizer = mapping.write(maskgit_tokenizer.table(systems.build(c)[0]), expected)
    assert tokenizer["encoder/ResBlock_0/Conv_0/kernel"].shape[:2] == (3, 3)
    arrays = []
    for name, one in (("maskgit_checkpoint", weights), ("tokenizer_checkpoint", tokenizer)):
        files.write(tmp_path / f"{name}.msgpack", one)
        (tmp_path / f"{name}.msgpack").rename(tmp_path / name)
        arrays.append(files.read(tmp_path / name))
    found = systems.infer(s, arrays[1])
    assert found.tokenizer == c.tokenizer
    chex.assert_trees_all_equal(systems.read(s.tokenizer, systems.build(found)[0], arrays[1]), expected)
    c.tokenizer.vocab, c.model = 24, {}
    s.generator.fill(c, arrays[0])
    assert (c.data.num_classes, c.mixer.heads, c.model.layers, c.model.mlp_width) == (6, 4, 2, 64)
    assert (c.order.steps, s.generator.levels(arrays[0])) == (8, (4,))
    c.data.image_size = 4 * 2 ** (len(found.tokenizer.encoder.get("multipliers", (1,) * 5)) - 1)
    generator = systems.build(c)[1]
    params = systems.read(s.generator, generator, arrays[0])
    again = mapping.write(s.generator.table(generator), params)
    assert set(again) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(again[name], array)
