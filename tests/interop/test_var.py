"""VAR's golden without its tokenizer's, and its tokenizer's names."""

import numpy as np
import pytest
from golden import FOLDER

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.interop import check, systems, var_tokenizer
from vargen.interop.parity.golden import Golden


def test_a_wrong_weight_is_found(tmp_path):
    """And without the tokenizer's golden only what samples gave is left out."""
    greedy = "out/greedy_cfg1.5/idx_0"
    outputs = ["out/logits", "out/logits_null", greedy]
    arrays = Golden(FOLDER / "var_transformer_l2norm.npz").arrays
    arrays = {k: v for k, v in arrays.items() if not k.startswith("out/") or k in outputs}
    weight = "sd/blocks.1.attn.scale_mul_1H11"
    for name, factor in (("right", 1.0), ("wrong", 1.001)):
        np.savez(tmp_path / name, **arrays | {weight: arrays[weight] * np.float32(factor)})
    right, wrong = (check.check(str(tmp_path / f"{name}.npz")) for name in ("right", "wrong"))
    assert all(r.holds for r in right.results) and greedy in right.left
    assert sum(not r.holds for r in wrong.results) == 2


@pytest.mark.parametrize("phi", [0, 1, 2])
def test_names_follow_the_sharing_of_phi(phi):
    t = tokenizers.build(
        part("multiscale_vq", vocab=4, channels=2, levels=(1, 2), phi=phi, encoder=part("conv", width=4)),
        32,
        3,
    )
    sources = [
        s for e in var_tokenizer.table(t) for s in e.sources if "quant_resi" in s and s.endswith("weight")
    ]
    names = {0: ["{}", "{}"], 1: ["qresi"], 2: ["qresi_ls.{}", "qresi_ls.{}"]}[phi]
    assert sources == [f"quantize.quant_resi.{n.format(i)}.weight" for i, n in enumerate(names)]


def test_wrong_weights_are_named():
    golden = Golden(FOLDER / "var_tokenizer.npz")
    weights = golden.weights
    t = tokenizers.build(var_tokenizer.part(weights, tuple(golden.meta["patch_nums"])), golden.meta["img"], 3)
    fewer = {k: v for k, v in weights.items() if k != "quant_conv.bias"}
    with pytest.raises(UserError, match=r"missing arrays: quant_conv\.bias \(8,\); unexpected arrays: none"):
        systems.read(var_tokenizer, t, fewer)
    with pytest.raises(UserError, match=r"missing arrays: none; unexpected arrays: head\.weight"):
        systems.read(var_tokenizer, t, {**weights, "head.weight": np.zeros(3)})
    cut = {**weights, "quantize.embedding.weight": weights["quantize.embedding.weight"][:5]}
    with pytest.raises(
        UserError, match=r"quantize\.embedding\.weight \(expected \(64, 8\), found \(5, 8\)\)"
    ):
        systems.read(var_tokenizer, t, cut)
