"""FlexVAR and its tokenizer against their authors' outputs."""

import numpy as np
import pytest
from golden import FOLDER

from vargen.interop import check


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
        ("flexvar", "sd/var.pos_1LC", "out/tf/a/logits"),
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
