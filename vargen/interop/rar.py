"""RAR's transformer (bytedance/1d-tokenizer, rar_b.bin ...): the authors' parameter names beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.interop import mapping as m
from vargen.interop import shapes

WHAT = "RAR"
IGNORED = ()
WRAPPED = ()
# By width: the name; temperature, guidance and its power for the paper's FID.
SIZES = {
    768: ("B", 1.0, 16.0, 2.75),
    1024: ("L", 1.02, 15.5, 2.5),
    1280: ("XL", 1.02, 6.9, 1.5),
    1408: ("XXL", 1.02, 8.0, 1.2),
}
# The authors' tables of positions have so many places more than slots, which their sampler never uses.
SPARE, SPARE_STEPS = 1024, 100


def levels(arrays: Mapping[str, Any]) -> tuple[int] | None:
    """The side of the grid; None where the tables of positions are not of the authors' sizes."""
    places, steps = (shapes.shape(arrays, name, WHAT)[1] for name in ("pos_embed", "timesteps_embeddings"))
    return (math.isqrt(places - SPARE),) if places - steps == SPARE - SPARE_STEPS else None


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; the arrays tell the heads."""
    vocab, width = shapes.pair(arrays, "lm_head.weight", WHAT)
    name, temperature, guidance, power = SIZES.get(width, (str(width), *SIZES[768][1:]))
    c.name = f"RAR-{name}"
    c.data.num_classes = shapes.shape(arrays, "embeddings.weight", WHAT)[0] - vocab - 2
    c.conditioning = part("label", dropout=0.1, lead=1, zero_lead=True)
    c.order = part("random_to_raster")
    c.feed = part("shift", positions=True, target_positions=True, step_condition=True)
    told = width // shapes.shape(arrays, "blocks.0.attn.q_norm.weight", WHAT)[0]
    heads = shapes.told_heads(heads, told)
    c.mixer = part("attention", heads=heads, qk_norm="layer", bias="qkv", dropout=0.1, weight_dropout=0.1)
    c.head = part("categorical", init_std=0.02)
    c.model = dict(
        layers=shapes.count(arrays, "blocks.{}.attn.proj.weight", WHAT),
        width=width,
        mlp="gelu",
        mlp_width=shapes.shape(arrays, "blocks.0.mlp.fc1.weight", WHAT)[0],
        adaptive="adaln",
        adaln_zero=True,
        init="normal",
        dropout=0.1,
    )
    c.sampling.update(dict(guidance=4.0))
    c.presets.paper = preset(
        count=50,
        rounding="down",
        guidance=guidance,
        guidance_schedule="cosine",
        guidance_power=power,
        temperature=temperature,
    )
    c.presets.demo = preset(guidance=4.0)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    width, slots = generator.width, generator.tokenizer.grid.size
    vocab = generator.tokenizer.vocab
    ours = [f"blocks/mixer/{name}" for name in ("query", "key", "value")]

    def layer(i: int) -> list[m.Entry]:
        b = f"blocks.{i}"
        entries = m.split_dense(ours, f"{b}.attn.qkv", [width] * 3)
        entries += m.norm("blocks/mixer/query_norm", f"{b}.attn.q_norm")
        entries += m.norm("blocks/mixer/key_norm", f"{b}.attn.k_norm")
        entries += m.dense("blocks/mixer/out", f"{b}.attn.proj")
        entries += m.dense("blocks/feed_forward/up", f"{b}.mlp.fc1")
        entries += m.dense("blocks/feed_forward/down", f"{b}.mlp.fc2")
        entries += m.norm("blocks/norm_1", f"{b}.norm1") + m.norm("blocks/norm_2", f"{b}.norm2")
        # Theirs: shift, scale, gate of the mixer, then of the network; ours: both gates, scales, shifts.
        order, theirs = (2, 5, 1, 4, 0, 3), f"{b}.adaLN_modulation.1"
        entries += m.permuted("blocks/modulation/kernel", f"{theirs}.weight", order, m.DENSE)
        return entries + m.permuted("blocks/modulation/bias", f"{theirs}.bias", order)

    # Codes, a mask that is never used, classes and none: one table there, two here.
    entries = [
        m.Entry(
            ("feed/content/codes/table", "condition/classes/table"),
            ("embeddings.weight",),
            lambda w: (w[:vocab], w[vocab + 1 :]),
            lambda codes, labels: (np.concatenate([codes, np.zeros((1, width), codes.dtype), labels]),),
        )
    ]
    entries += m.array("condition/lead", "cls_token", m.LEADING)
    entries += m.some_rows("feed/places/table", "pos_embed", 0, slots + 2, slots + SPARE)
    entries += m.some_rows("feed/targets/table", "target_aware_pos_embed", 2, slots, slots + SPARE)
    entries += m.some_rows("feed/steps/table", "timesteps_embeddings", 0, slots + 1, slots + SPARE_STEPS)
    entries += m.stacked(generator.stages[0].layers, layer)
    entries += m.dense("blocks_norm/modulation", "adaln_before_head.adaLN_modulation.1")
    return entries + m.dense("head/out", "lm_head")
