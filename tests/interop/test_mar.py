"""MAR's transformer, denoiser, sampler and tokenizer against the authors' outputs (float32, CPU)."""

import re

import numpy as np
import pytest
from golden import FOLDER

from vargen.interop import check


@pytest.mark.parametrize("name", ["mar", "mar_kl"])
def test_every_output_of_the_authors_is_reproduced(name):
    # Tolerances are the comparisons' own: 2e-5 or 1e-4 relative, whole samplers up to 4 times their own rounding.
    report = check.check(str(FOLDER / f"{name}.npz"))
    found, results, left = report.family, report.results, report.left
    assert not report.problem
    assert (found, left) == (name, [])
    assert results and [r for r in results if not r.holds] == []


@pytest.mark.parametrize(
    "weight, same, changed",
    [
        ("decoder_blocks.1.mlp.fc1.weight", ["enc"], ["z"]),
        ("diffloss.net.res_blocks.2.mlp.0.weight", ["betas"], ["p_sample_t9", "p_sample_t4_x0"]),
    ],
)
def test_a_changed_weight_is_found(weight, same, changed, tmp_path, capsys):
    outputs = {f"out/{name}" for name in (*same, *changed)}
    with np.load(FOLDER / "mar.npz") as file:
        kept = [name for name in file.files if not name.startswith("out/") or name in outputs]
        # Without times there is no loss to differentiate.
        arrays = {name: file[name] for name in kept if name not in ("in/t", "in/noise")}
    arrays[f"sd/{weight}"] *= 1.01
    path = tmp_path / "changed.npz"
    np.savez(path, **arrays)
    assert check.main([str(path)]) == 2  # other inputs are left without their outputs
    verdicts = dict(re.findall(r"out/(\S+) .* (ok|DIFFERS)\n", capsys.readouterr().out))
    assert verdicts == dict.fromkeys(same, "ok") | dict.fromkeys(changed, "DIFFERS")
