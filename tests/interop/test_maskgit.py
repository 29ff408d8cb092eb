"""MaskGIT against its authors' outputs."""

import pathlib

import numpy as np
import pytest

from vargen.interop import check

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "maskgit.npz"


def test_parity():
    """Logits, losses, gradients, schedules, and every step of four runs on recorded noise, one of an edited picture."""
    report = check.check(str(GOLDEN))
    assert report.family == "maskgit" and not report.problem
    assert not [r for r in report.results if not r.holds]
    outputs = {name for name in np.load(GOLDEN).files if name.startswith("out/")}
    assert {r.output for r in report.results} == outputs


@pytest.mark.parametrize("array", ["sd/MlmLayer_0/mlm_bias/bias", "in/greedy_mask/g_tok_0"])
def test_a_wrong_array_is_found(array, tmp_path, capsys):
    with np.load(GOLDEN) as file:
        kept = ("out/logits", "out/gen/greedy_mask/")
        arrays = {n: file[n] for n in file.files if not n.startswith("out/") or n.startswith(kept)}
    arrays[array] = arrays[array][..., ::-1]
    np.savez(tmp_path / "wrong.npz", **arrays)
    check.main([str(tmp_path / "wrong.npz")])
    lines = capsys.readouterr().out.splitlines()
    different = {line.split()[0] for line in lines if line.endswith("DIFFERS")}
    assert "out/gen/greedy_mask/ids_fed" in different
    assert ("out/logits" in different) == array.startswith("sd/")
