"""Tiny tokenizers and goldens for the tests of this folder."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from vargen import tokenizers
from vargen.config import part

FOLDER = pathlib.Path(__file__).parent.parent / "goldens"
PATCH = part("patch", patch=4, width=32, blocks=1, token_width=16, channel_width=32)
PARTS = dict(
    vq=part("vq", vocab=32, channels=4, revive_every=5, encoder=PATCH),
    multiscale_vq=part(
        "multiscale_vq", vocab=32, channels=4, levels=(1, 2, 4), revive_every=5, encoder=PATCH
    ),
    multiscale_product_vq=part(
        "multiscale_product_vq",
        vocab=16,
        channels=4,
        levels=(1, 2, 4),
        revive_every=5,
        encoder=PATCH,
        dependency_weight=0.3,
        level_dropout=0.5,
        level_dropout_from=1,
    ),
    vq_ema=part("vq_ema", vocab=32, channels=4, encoder=PATCH),
    vq_wae=part("vq_wae", vocab=32, channels=4, iterations=5, encoder=PATCH),
    rq=part("rq", vocab=32, channels=4, depth=2, encoder=PATCH),
    fsq=part("fsq", levels=(4, 3, 3), encoder=PATCH),
    lfq=part("lfq", channels=6, groups=2, entropy_bits=3, encoder=PATCH),
    bsq=part("bsq", channels=5, entropy_bits=5, encoder=PATCH),
    ibq=part("ibq", vocab=32, channels=4, encoder=PATCH),
    binary=part("binary", channels=6, encoder=PATCH),
    product_vq=part("product_vq", vocab=16, channels=4, groups=2, revive_every=5, encoder=PATCH),
    qlae=part("qlae", vocab=6, channels=3, encoder=PATCH),
    pyramid_vq=part(
        "pyramid_vq", vocab=32, channels=4, levels=(1, 2, 4), revive_every=5, encoder=PATCH, level_weight=0.0
    ),
    pyramid_kl=part("pyramid_kl", channels=4, levels=(1, 2, 4), measure=True, encoder=PATCH),
    kl=part("kl", channels=4, measure=True, encoder=PATCH),
    binned_kl=part("binned_kl", vocab=8, channels=3, measure=True, spread=1.0, encoder=PATCH),
    teacher_kmeans=part(
        "teacher_kmeans",
        vocab=16,
        encoder=PATCH,
        teacher=part("siglip", side=16, patch=4, places=4, width=16, layers=1, heads=2),
    ),
    within=part(
        "within",
        outer=part("kl", channels=4, encoder=part("patch", patch=2, width=16, blocks=1)),
        inner=part("fsq", levels=(4, 3, 3), encoder=part("patch", patch=2, width=16, blocks=1)),
    ),
    companded=part("companded", vocab=15, channels=3, spread=3.0, encoder=PATCH),
    dynamic_vq=part("dynamic_vq", codes=32, channels=4, revive_every=5, encoder=PATCH),
    hybrid_multiscale=part(
        "hybrid_multiscale", vocab=32, channels=4, levels=(1, 2, 4), revive_every=5, encoder=PATCH
    ),
    jpeg=part("jpeg", quality=5, length=100, merges=2),
)


SMALL = dict(patch=4, width=16, layers=1, heads=2)
PIXELS = dict(patch=4, width=32, blocks=1, token_width=16, channel_width=32, window_width=8)
FEW = dict(width=8, multipliers=(1, 1, 2), blocks=1, groups=4)
LEVELS = dict(sees="levels", nested="levels", begins="residuals", stages=2, apart=True, places="rotary")
LEVELS |= dict(nested_rate=0.3, dropped="latent")
CONV = dict(name="conv", projection=0, middle_attention=False, adaptive=True, spread=True)
# Other encoders, each under one of the parts; and contents with a residual.
ENCODED = dict(
    vit=part("vq", vocab=32, channels=4, encoder=part("vit", **SMALL, window=3, shift=True)),
    beside=part("hybrid_multiscale", vocab=32, channels=4, levels=(1, 2, 4), beside=True, encoder=PATCH),
    wavelets=part("kl", channels=4, encoder=part("wavelets", levels=2, width=8, blocks=1, groups=4)),
    pixel_cnn=part("vq", vocab=32, channels=4, encoder=part("pixel_cnn", **PIXELS)),
    registers=part(
        "vq",
        vocab=32,
        channels=4,
        encoder=part("registers", tokens=(1, 2, 4), sees="levels", nested="levels", **SMALL),
    ),
    merging=part(
        "vq",
        vocab=32,
        channels=4,
        encoder=part("registers", tokens=(1, 1, 2, 4), **SMALL | dict(layers=2), **LEVELS),
    ),
    stem=part(
        "vq",
        vocab=32,
        channels=4,
        encoder=part(
            "registers",
            tokens=8,
            anchor=True,
            norm_in=True,
            stem=part("conv", **FEW),
            stem_channels=8,
            decoder=part("direct", pixels=part("pooled", **FEW), pixel_channels=8, codes=16),
            **SMALL,
        ),
    ),
    diffusion=part(
        "kl",
        channels=4,
        encoder=part(
            "registers",
            tokens=8,
            sees="causal",
            nested="uniform",
            decoder=part("diffusion", steps=3, absent="latents", places="waves", clip=2.0),
            **SMALL,
        ),
    ),
    across=part(
        "vq",
        vocab=32,
        channels=4,
        temperature=0.1,
        encoder=part(
            "across",
            tokens=8,
            stem=part(**CONV | FEW),
            stem_channels=8,
            width=16,
            layers=1,
            heads=2,
            decoder_layers=2,
            shown_after=1,
        ),
    ),
    squares=part(
        "product_vq",
        vocab=32,
        channels=4,
        groups=2,
        revive_every=5,
        encoder=part(
            "registers", tokens=4, square=True, abreast=2, placed=True, anchor=True, norm_out=False, **SMALL
        ),
    ),
    flow=part(
        "vq",
        vocab=32,
        channels=4,
        encoder=part(
            "registers", tokens=8, sees="causal", nested="powers", decoder=part("flow", steps=3), **SMALL
        ),
    ),
    looking=part(
        "vq",
        vocab=32,
        channels=4,
        encoder=part(
            "registers",
            tokens=8,
            sees="causal",
            rank=3,
            norm_patches=True,
            latent_bias=False,
            places="rotary_patches",
            outer_affine=False,
            gates=True,
            decoder=part(
                "flow",
                steps=4,
                patch=8,
                groups=4,
                release="window",
                solver="adams",
                shift=2.0,
                scale=0.6,
                told_layers=1,
                looks="across",
                counts="up",
            ),
            **SMALL,
        ),
    ),
)
ALL = {**PARTS, **ENCODED}
TRAINED = [name for name in ALL if name != "jpeg"]
# Whose parts others of `ENCODED` have too; and what files of their own and test_table_of_quantisers.py run as well.
SLOW = "across stem looking merging squares diffusion beside within".split()
SLOW += (
    "multiscale_product_vq product_vq qlae binned_kl vq_wae rq lfq bsq ibq binary vq_ema pyramid_vq".split()
)
SLOW += "dynamic_vq companded wavelets pixel_cnn flow denoising multiscale_vq registers jpeg".split()
FROZEN = ("teacher_kmeans",)  # of which the encoder isn't


def tiny(name: str, image_size: int = 16, **options):
    """A tokenizer of grey 16x16 images with a 4x4 latent grid."""
    return tokenizers.build(part(**{**ALL[name], **options}), image_size, 1)


def golden(name: str) -> tuple[dict, dict, dict]:
    """Arrays, the authors' weights, meta; images as NHWC."""
    arrays = np.load(FOLDER / f"{name}.npz")
    weights = {k.removeprefix("sd/"): arrays[k] for k in arrays.files if k.startswith("sd/")}
    rest = {k: nhwc(arrays[k]) for k in arrays.files if not k.startswith("sd/") and k != "meta"}
    return rest, weights, json.loads(str(arrays["meta"])) if "meta" in arrays.files else {}


def nhwc(x: np.ndarray) -> np.ndarray:
    """Images and latents are NCHW in the goldens."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def digits(split: str = "train") -> np.ndarray:
    """float32 [n, 16, 16, 1] in [-1, 1]."""
    from vargen.config import digits as settings
    from vargen.data.digits import load

    source = load(settings(), split)
    return np.stack([source[i]["image"] for i in range(256)]).astype(np.float32) / 127.5 - 1
