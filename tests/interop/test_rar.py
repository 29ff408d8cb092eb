"""RAR against its authors' outputs."""

import pathlib

import numpy as np

from vargen.interop import check

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "rar.npz"


def test_parity(capsys):
    report = check.check(str(GOLDEN))
    family, results, left = report.family, report.results, report.left
    assert not report.problem
    assert family == "rar" and not left
    assert not [r for r in results if not r.holds]
    assert len(results) == len(np.load(GOLDEN).files) - sum(
        not name.startswith("out/") for name in np.load(GOLDEN).files
    )


def test_a_wrong_weight_is_found(tmp_path, capsys):
    with np.load(GOLDEN) as file:
        arrays = {name: file[name] for name in file.files if "gradnorm" not in name and "greedy" not in name}
    arrays["sd/blocks.1.attn.q_norm.weight"] = arrays["sd/blocks.1.attn.q_norm.weight"] * 1.01
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    assert check.main([str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("out/logits_raster" in line and line.endswith("DIFFERS") for line in lines)
    assert any("out/labels_random" in line and line.endswith("ok (input)") for line in lines)


def test_files_that_are_no_goldens(tmp_path, capsys):
    text, other = tmp_path / "text.npz", tmp_path / "other.npz"
    text.write_text("hello")
    np.savez(other, a=np.zeros(3), meta='{"a": 1}')
    assert check.main([str(text)]) == 2 and check.main([str(other)]) == 2 and check.main([]) == 2
    error = capsys.readouterr().err
    assert "expected an .npz" in error and "found none of their arrays" in error and "usage" in error
