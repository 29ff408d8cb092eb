"""FlexVAR and its tokenizer against their authors' outputs."""

import numpy as np
import pytest
from golden import FOLDER

from vargen.interop import check, flexvar, mapping, systems
from vargen.interop.parity.golden import Golden, stand_in


@pytest.mark.parametrize("name, family", [("flexvar", "flexvar"), ("flexvar_tokenizer", "flexvar_vq")])
def test_parity(name, family):
    path = FOLDER / f"{name}.npz"
    report = check.check(str(path))
    assert report.family == family and not report.problem
    assert not [r for r in report.results if not r.holds]
    outputs = {name for name in np.load(path).files if name.startswith("out/")}
    assert {r.output for r in report.results} == outputs


@pytest.mark.parametrize(
    "name, weight, output",
    [
        ("flexvar", "sd/var.pos_1LC", "out/tf/b/logits"),
        ("flexvar_tokenizer", "sd/post_quant_conv.weight", "out/scale3/rec"),
    ],
)
def test_a_wrong_weight_is_found(name, weight, output, tmp_path):
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {k: file[k] for k in file.files if not k.startswith("out/") or k == output}
    arrays[weight] = arrays[weight] * np.float32(1.01)
    np.savez(tmp_path / "wrong.npz", **arrays)
    (found,) = (r for r in check.check(str(tmp_path / "wrong.npz")).results if r.output == output)
    assert not found.holds


def test_names_both_ways():
    """The arrays come back as they were; the mask of training's last set of levels may have any size."""
    golden = Golden(FOLDER / "flexvar.npz")
    arrays = {k.removeprefix("var."): v for k, v in golden.weights.items() if k.startswith("var.")}
    c = stand_in(4, name="pyramid_vq", level_weight=0.0, levels=(1, 2, 4), vocab=40, channels=6)
    flexvar.fill(c, arrays)
    c.order = dict(name="levels")
    generator = systems.build(c)[1]
    again = mapping.write(flexvar.table(generator), systems.read(flexvar, generator, arrays))
    assert again.keys() == arrays.keys()
    assert again.pop("attn_bias_for_masking").shape == (1, 1, 680, 680)
    for name, array in again.items():
        np.testing.assert_array_equal(array, arrays[name], strict=True, err_msg=name)
