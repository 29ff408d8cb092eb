"""The transformer over VQGAN's codes (CompVis/taming-transformers, cin_transformer/checkpoints/last.ckpt): the authors'
names beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.interop import mapping as m
from vargen.interop import rqtransformer, shapes

WHAT = "VQGAN's transformer"
IGNORED = ("first_stage_model.*", "cond_stage_model.*", "transformer.blocks.*.attn.mask")
WRAPPED = ("state_dict",)  # in the authors' PyTorch files
CODES, PLACES = "transformer.tok_emb.weight", "transformer.pos_emb"
CLASSES = 1000  # ImageNet's, of which the arrays tell nothing


def levels(arrays: Mapping[str, Any]) -> tuple[int, ...]:
    """The side of the grid: a position for each slot, of which the class has one and the last slot none."""
    return (math.isqrt(shapes.shape(arrays, PLACES, WHAT)[1]),)


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` where the authors' rule isn't followed."""
    vocab, width = shapes.pair(arrays, CODES, WHAT)
    c.name = "VQGAN-GPT"
    c.data.num_classes = min(CLASSES, vocab)
    c.conditioning = part("label", dropout=None)
    c.order, c.feed = part("raster"), part("shift", positions=True)
    c.mixer = part("attention", heads=shapes.heads(width, heads, width // 64, WHAT), bias="qkv")
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=shapes.count(arrays, "transformer.blocks.{}.ln1.weight", WHAT),
        width=width,
        mlp="gelu",
        eps=1e-5,
        init_std=0.02,
        init="normal",
    )
    best: dict[str, Any] = dict(top_k=600, top_p=0.92)
    c.sampling.update(best)
    c.presets.paper = preset(count=50, **best)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    classes = generator.condition.num_classes
    entries = [
        # A class has the row of the code of its number.
        m.Entry(
            ("feed/content/codes/table", "condition/classes/table"),
            (CODES,),
            lambda w: (w, w[:classes]),
            lambda codes, labels: (codes,),
        ),
        m.Entry(
            ("feed/places/table",),
            (PLACES,),
            lambda w: (np.pad(w[0], [(0, 1), (0, 0)]),),
            lambda w: (w[None, :-1],),
        ),
    ]
    entries += rqtransformer.stack("blocks", "transformer", generator.stages[0].layers)
    entries += m.norm("blocks_norm/norm", "transformer.ln_f")
    return entries + m.dense("head/out", "transformer.head", bias=False)
