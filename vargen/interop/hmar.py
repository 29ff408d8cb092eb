"""HMAR's transformer after its second stage (nvidia/HMAR, hmar-d16.pth ...): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.interop import mapping as m
from vargen.interop import shapes, var

WHAT = "HMAR"
IGNORED = ()
WRAPPED = ()
# By depth: the guidance and top-k that the authors evaluate with, which no array tells.
SETTINGS = {16: (1.7, 1000), 20: (1.9, 950), 24: (2.1, 900), 30: (1.6, 650)}
# Slots that each pass keeps, by the side of the scale, as the authors sample.
PASSES = {2: (1, 3), 3: (1, 1, 2, 5)}
OF_512 = PASSES | {4: (5, 11)}


def levels(arrays: Mapping[str, Any]) -> tuple[int, ...]:
    """Sides of the levels, coarse to fine; raises UserError where they can't be told from the arrays."""
    return var.levels(arrays, WHAT)


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; heads are told by the arrays."""
    classes, width = shapes.pair(arrays, "class_emb.weight", WHAT)
    trunk, *ends = (
        shapes.count(arrays, f"{name}_blocks.{{}}.attn.proj.weight", WHAT) for name in ("base", "ns", "mask")
    )
    heads = shapes.told_heads(heads, shapes.shape(arrays, "base_blocks.0.attn.scale_mul_1H11", WHAT)[1])
    depth, sides = trunk + ends[0], levels(arrays)
    large = sides[-1] == 32
    c.name = f"HMAR-d{depth}{'_512' * large}"
    c.data.num_classes = classes - 1
    c.order = part("masked_levels")
    c.feed = part("branched", masked=True)
    c.mixer = part("attention", heads=heads, qk_norm="l2", bias="qv")
    c.head = part("categorical", init_std=0.02 * (1 / (3 * width)) ** 0.5)
    c.model = dict(
        layers=(trunk, *ends),
        width=width,
        adaptive="adaln",
        affine=False,
        gate_gain=var.GATES.get(depth, 1e-5),
        init_std=-1.0,
        init="normal",
        depth_scaled_init=True,
        drop_path=0.1 * depth / 24,
    )
    passes = OF_512 if large else PASSES
    schedule = tuple(passes.get(n, (n * n,)) for n in sides)
    guidance, top_k = SETTINGS.get(depth, (1.7, 1000))
    best: dict[str, Any] = dict(
        guidance=guidance, guidance_schedule="ramp", top_k=top_k, top_p=0.99, schedule=schedule
    )
    c.sampling.update(best)
    c.presets.paper = preset(count=50, **best)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    level = generator.tokenizer.grid.coords[:, 0]
    entries = m.array("condition/classes/table", "class_emb.weight")
    entries += m.array("feed/first", "pos_start", m.LEADING)
    entries += m.array("feed/positions/table", "pos_1LC", m.LEADING)
    entries += m.array("feed/levels/table", "lvl_embed.weight")
    entries += m.array("feed/mask", "mask_embed.weight")
    entries += m.array("feed/content/latents/kernel", "word_embed.weight", m.DENSE)
    entries += m.array("feed/content/latents/bias", "word_embed_bias")
    for stage, theirs in zip(generator.stages, ("base", "ns", "mask"), strict=True):
        entries += var.stack(stage, f"{theirs}_blocks")
    for stage, theirs, head in (("next", "ns", "head"), ("masked", "mask", "masked_head")):
        entries += m.dense(f"{stage}_norm/modulation", f"{theirs}_head_nm.ada_lin.1")
        entries += m.dense(f"{head}/out", f"{theirs}_head")
    entries += m.buffer("lvl_1L", lambda: level[None].astype(np.int64))
    return entries + m.buffer("attn_bias_for_masking", lambda: mask(level))


def mask(level: np.ndarray) -> np.ndarray:
    """float32 [1, 1, N, N]: 0 where a row sees another, by their levels int [N]; else -inf."""
    return np.where(level[:, None] == level, 0.0, -np.inf)[None, None].astype(np.float32)
