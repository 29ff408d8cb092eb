"""ACDiT against its authors' outputs, of images and of videos."""

import numpy as np
import pytest
from golden import FOLDER

from vargen.interop import check


@pytest.mark.parametrize("name", ["acdit", "acdit_video"])
def test_parity(name):
    """Each output within 2e-5 of its largest value: predictions, gradients, samplers and each of their passes."""
    path = FOLDER / f"{name}.npz"
    report = check.check(str(path))
    assert report.family == "acdit" and not report.problem
    assert not [r for r in report.results if not r.holds]
    outputs = {name for name in np.load(path).files if name.startswith("out/")}
    assert {r.output for r in report.results} == outputs


def test_a_wrong_weight_is_found(tmp_path, capsys):
    same, changed = ("mask", "noised"), ("pred", "sample_cfg1.5")
    outputs = {f"out/{name}" for name in (*same, *changed)}
    with np.load(FOLDER / "acdit.npz") as file:
        arrays = {n: file[n] for n in file.files if not n.startswith("out/") or n in outputs}
    arrays["sd/blocks.1.adaLN_modulation.1.weight"] *= 1.01
    np.savez(tmp_path / "wrong.npz", **arrays)
    check.main([str(tmp_path / "wrong.npz")])
    lines = capsys.readouterr().out.splitlines()
    for name in (*same, *changed):
        (line,) = (line for line in lines if f"out/{name} " in line)
        assert line.endswith("ok" if name in same else "DIFFERS")
