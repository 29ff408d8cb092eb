"""RandAR and ARPG against their authors' outputs."""

import pathlib

import numpy as np
import pytest

from vargen.interop import check

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


@pytest.mark.parametrize("family", ["randar", "arpg"])
def test_parity(family):
    path = GOLDENS / f"{family}.npz"
    report = check.check(str(path))
    assert report.family == family and not report.problem
    assert not [r for r in report.results if not r.holds]
    outputs = {name for name in np.load(path).files if name.startswith("out/")}
    assert {r.output for r in report.results} == outputs


@pytest.mark.parametrize(
    "family, weight, output",
    [
        ("randar", "sd/pos_instruct_embeddings", "out/logits_raster"),
        ("arpg", "sd/layers.to_k.weight", "out/logits_raster"),
    ],
)
def test_a_wrong_weight_is_found(family, weight, output, tmp_path, capsys):
    with np.load(GOLDENS / f"{family}.npz") as file:
        arrays = {name: file[name] for name in file.files if not name.startswith("out/") or name == output}
    arrays[weight] = arrays[weight] * 1.01
    np.savez(tmp_path / "wrong.npz", **arrays)
    check.main([str(tmp_path / "wrong.npz")])
    lines = capsys.readouterr().out.splitlines()
    assert any(output in line and line.endswith("DIFFERS") for line in lines)
