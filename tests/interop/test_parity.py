"""Every output of the authors' that a golden holds is reproduced, and a wrong array in it is found.

Tolerances are the comparisons' own: codes exactly; 2e-5 of the largest value expected where the authors' outputs were
reproduced independently, 1e-4 for other single passes; whole samplers of MAR up to 4 times their own rounding.
"""

import numpy as np
import pytest
from golden import FOLDER, GOLDENS
from systems import some_slow

from vargen.errors import UserError
from vargen.interop import check


def test_no_golden_is_left_out():
    """The others are of mixers and of LPIPS, which the tests of these read."""
    for path in FOLDER.glob("*.npz"):
        if path.stem not in GOLDENS:
            with pytest.raises(
                UserError, match="expected one of .* their arrays|expected meta|expected numbers"
            ):
                check.check(str(path))
    assert set(GOLDENS.values()) == set(check.FAMILIES)


# Those that take longest, of systems whose parts other goldens hold as well.
SLOW = (
    "acdit_video arpg flexvar flexvar_tokenizer gigatok imagefolder_ms larp_tokenizer randar restok".split()
)
SLOW += "rqtransformer rqvae semanticist var_transformer_sharedaln acdit bsqvit dar flextok ibq imagefolder_vp".split()
SLOW += "llamagen_gpt_t2i mar_kl open_magvit2 taming_vqgan titok_bert titok_kl titok_text titok_uvit".split()


@pytest.mark.parametrize("name", some_slow(GOLDENS, SLOW))
def test_parity(name):
    path = FOLDER / f"{name}.npz"
    report = check.check(str(path))
    assert report.family == GOLDENS[name] and not report.problem
    assert not [r for r in report.results if not r.holds]
    with np.load(path) as file:
        assert {r.output for r in report.results} == {n for n in file.files if n.startswith("out/")}


# Of which something wrong is looked for always.
OFTEN = "hart_tokenizer imagefolder_vp llamagen_gpt_gqa maskgit rar taming_mingpt titok_kl titok_vq".split()
# A golden and a weight or an input of it that is changed; outputs that differ then, and others that don't.
WRONG = [
    ("acdit", "sd/blocks.1.adaLN_modulation.1.weight", "pred sample_cfg1.5", "mask noised"),
    ("arpg", "sd/layers.to_k.weight", "logits_raster", "freqs_cis"),
    ("flexvar", "sd/var.pos_1LC", "tf/b/logits", "tf/b/ids"),
    ("flexvar_tokenizer", "sd/post_quant_conv.weight", "scale3/rec", "x1/ids"),
    ("llamagen_gpt_gqa", "sd/layers.1.feed_forward.w3.weight", "logits loss", ""),
    ("mar", "sd/decoder_blocks.1.mlp.fc1.weight", "z", "enc"),
    ("mar", "sd/diffloss.net.res_blocks.2.mlp.0.weight", "p_sample_t9 p_sample_t4_x0", "betas"),
    ("maskgit", "sd/MlmLayer_0/mlm_bias/bias", "logits", "schedule/cosine"),
    ("maskgit", "in/greedy_mask/g_tok_0", "gen/greedy_mask/ids_fed", "logits"),
    ("randar", "sd/pos_instruct_embeddings", "logits_raster", "freqs_cis"),
    ("rar", "sd/blocks.1.attn.q_norm.weight", "logits_raster", "labels_random"),
    ("restok", "sd/encoder.level_embedding.1", "merged z", ""),
    ("restok", "sd/decoder.latent_mask_token", "dec_first4 dec_mixed", "dec taught z indices"),
    ("rqtransformer", "sd/a.pos_emb_d", "a/logits", ""),
    ("bsqvit", "sd/encoder.transformer.resblocks.1.ln_1.weight", "enc h", ""),
    ("bsqvit", "sd/decoder.ffn.0.weight", "dec_raw", "indices group_indices"),
    (
        "flextok",
        "sd/decoder.module_dict.dec_nested_dropout.dropout_mask_token",
        "v_keep sample_cfg3",
        "v v_null z",
    ),
    (
        "flextok",
        "sd/decoder.module_dict.dec_latent_dropout.nullcond",
        "v_null sample_apg3",
        "v v_keep sample_cfg1",
    ),
    (
        "hart_tokenizer",
        "sd/quantize.quant_resi.qresi_ls.1.weight",
        "fhat_disc ar_fhat_2",
        "fhat_cont ar_fhat_0",
    ),
    ("gigatok", "sd/s1to2decoder.transformer.1.norm2.weight", "spatial dec", "shown indices h"),
    ("imagefolder_ms", "sd/decoder.lvl_embed.weight", "fw_dec", "h sem_loss var_input"),
    ("imagefolder_vp", "sd/encoder.model.blocks.0.ls1.gamma", "enc h", ""),
    (
        "larp_tokenizer",
        "sd/decoder_patch_query_token_type_embed",
        "det/video st/pred_frames",
        "det/projected_z",
    ),
    ("ibq", "sd/quantize.embedding.weight", "logits zq quant_loss", "h"),
    ("open_magvit2", "sd/decoder.adaptive.1.gamma.weight", "dec total", "h commit"),
    ("taming_mingpt", "sd/transformer.pos_emb", "logits", ""),
    ("taming_vqgan", "sd/post_quant_conv.weight", "dec total", "h vq_loss"),
    ("titok_bert", "sd/model.lm_head.weight", "logits loss", ""),
    ("titok_bert", "in/anneal/u_conf_1", "anneal/ids", "anneal/ids_1 linear/ids"),
    ("titok_kl", "sd/encoder.class_embedding", "z kl dec", ""),
    ("titok_proxies", "sd/pixel_quantize.embedding.weight", "dec", "z dec_logits"),
    ("titok_text", "in/text", "dec_from_tokens", "z indices"),
    ("titok_uvit", "sd/out_blocks.0.skip_linear.weight", "logits loss", "masks"),
    ("titok_uvit", "in/power_cosine/u_logits_2", "power_cosine/ids", "power_cosine/ids_2 linear/ids"),
    ("titok_vq", "sd/decoder.positional_embedding", "dec dec_from_tokens", "z indices"),
    ("rqvae", "sd/rq2.codebooks.1.weight", "rq2/partial_sums", "rec"),
    ("restok", "sd/decoder.blocks.3.gamma_2", "taught dec", "merged z indices whole_loss"),
    ("dar", "sd/tok.decoder_layers.0.gate2", "cond dec/adams2/image", "z codes"),
    (
        "dar",
        "sd/tok.diff_decoder.net.blocks.1.cross_attn.v.weight",
        "train/predict_x1_scaled",
        "cond train/cond",
    ),
    ("semanticist", "sd/encoder.pos_embed", "enc slots dit", "x_t"),
    ("semanticist", "sd/dit.null_cond", "dit", "slots dit_nomask"),
    ("semanticist", "sd/dit.final_layer.linear.weight", "loss sample_cfg1 sample_cfg2p5", "slots x_t"),
]


@pytest.mark.parametrize(
    "name, array, differ, same",
    [pytest.param(*row, marks=[pytest.mark.slow] * (row[0] not in OFTEN)) for row in WRONG],
)
def test_a_wrong_array_is_found(name, array, differ, same, tmp_path):
    expected = {f"out/{n}": False for n in differ.split()} | {f"out/{n}": True for n in same.split()}
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {n: file[n] for n in file.files if not n.startswith("out/") or n in expected}
        if array.startswith("in/"):  # of noise another
            kept = array.replace("in/", "out/gen/").rpartition("/")[0]
            arrays |= {n: file[n] for n in file.files if n.startswith(kept)}
    arrays[array] = arrays[array] * np.float32(1.01) if array.startswith("sd/") else arrays[array][..., ::-1]
    np.savez(tmp_path / "wrong.npz", **arrays)
    report = check.check(str(tmp_path / "wrong.npz"))
    assert not report.error
    assert {r.output: r.holds for r in report.results if r.output in expected} == expected
