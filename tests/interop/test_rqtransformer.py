"""RQ-VAE and RQ-Transformer against their authors' outputs, and their files against wrong ones."""

import pathlib

import jax
import numpy as np
import pytest

from vargen import models
from vargen.config import load
from vargen.errors import UserError
from vargen.interop import check, mapping, rqvae, systems

ROOT = pathlib.Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "goldens"


@pytest.mark.parametrize("family", ["rqvae", "rqtransformer"])
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
        ("rqvae", "sd/rq2.codebooks.1.weight", "out/rq2/partial_sums"),
        ("rqtransformer", "sd/a.pos_emb_d", "out/a/logits"),
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


def test_tables_of_all_depths_are_one():
    c = load(ROOT / "configs" / "rqtransformer.py:ffhq")
    c.tokenizer.update(dict(vocab=8, depth=2, channels=4))
    c.tokenizer.encoder.update(dict(width=32, multipliers=(1, 1, 1, 1, 1, 1), blocks=1))
    tokenizer = models.build_tokenizer(c)
    shapes = dict(mapping.flatten(jax.eval_shape(tokenizer.init, jax.random.key(0))))
    arrays = {n: np.zeros(s) for n, s in mapping.source_shapes(rqvae.table(tokenizer), shapes).items()}
    assert "encoder.down.4.attn.0.q.weight" in arrays and "encoder.down.5.attn.0.q.weight" not in arrays
    arrays["quantizer.codebooks.0.weight"] = arrays["quantizer.codebooks.1.weight"] = np.ones((9, 4))
    found = systems.read(rqvae, tokenizer, arrays)["quantizer"]["codebook"]
    assert found.shape == (1, 8, 4) and np.all(found == 1)
    arrays["quantizer.codebooks.1.weight"] = 2 * np.ones((9, 4))
    message = (
        r"RQ-VAE: expected quantizer\.codebooks\.1\.weight to be quantizer\.codebooks\.0\.weight once more"
    )
    with pytest.raises(UserError, match=message):
        systems.read(rqvae, tokenizer, arrays)
