"""LlamaGen's transformers and tokenizer against the authors' outputs (float32, CPU)."""

import re

import numpy as np
import pytest
from golden import FOLDER

from vargen.interop import check


@pytest.mark.parametrize(
    "name, family",
    [
        ("llamagen_gpt_c2i", "llamagen"),
        ("llamagen_gpt_gqa", "llamagen"),
        ("llamagen_gpt_t2i", "llamagen"),
        ("llamagen_vq", "llamagen_vq"),
    ],
)
def test_every_output_of_the_authors_is_reproduced(name, family):
    # Tolerances are the comparisons' own: 2e-5 (classes) or 1e-4 of the largest value, codes exactly.
    report = check.check(str(FOLDER / f"{name}.npz"))
    found, results, left = report.family, report.results, report.left
    assert not report.problem
    assert (found, left) == (family, [])
    assert results and [r for r in results if not r.holds] == []


def test_a_changed_weight_is_found(tmp_path, capsys):
    arrays = dict(np.load(FOLDER / "llamagen_gpt_gqa.npz"))
    arrays["sd/layers.1.feed_forward.w3.weight"][3, 5] += 0.1
    np.savez(tmp_path / "changed.npz", **arrays)
    assert check.main([str(tmp_path / "changed.npz")]) == 1
    assert re.search(r"out/logits .* DIFFERS\n", capsys.readouterr().out)
