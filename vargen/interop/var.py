"""VAR's transformer (FoundationVision/VAR, var_d16.pth ...): the authors' parameter names beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes

WHAT = "VAR"
IGNORED = ("vae_proxy.*", "vae_quant_proxy.*")
WRAPPED = ()
# Sides of the levels that the authors published, by their number and the number of slots.
PUBLISHED = {
    (10, 680): (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    (10, 2240): (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
}
# By depth: the gain with which the gates of the blocks start (`--alng` in the authors' README), which no array tells.
GATES = {16: 1e-3, 20: 1e-3, 24: 1e-4, 30: 1e-5, 36: 5e-6}


def levels(arrays: Mapping[str, Any], what: str = WHAT) -> tuple[int, ...]:
    """Sides of the levels, coarse to fine; `what` in messages.

    Raises:
      UserError: they can't be told from the arrays.
    """
    if "lvl_1L" in arrays:
        sizes = np.bincount(np.asarray(arrays["lvl_1L"], np.int64).ravel())
        return tuple(math.isqrt(n) for n in sizes)
    key = (shapes.shape(arrays, "lvl_embed.weight", what)[0], shapes.shape(arrays, "pos_1LC", what)[1])
    if key not in PUBLISHED:
        raise UserError(
            f"{what}: expected the array lvl_1L to tell {key[0]} levels of {key[1]} slots, found none"
        )
    return PUBLISHED[key]


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` where the arrays don't tell (64 wide)."""
    classes, width = shapes.pair(arrays, "class_emb.weight", WHAT)
    depth = shapes.count(arrays, "blocks.{}.attn.proj.weight", WHAT)
    scales = "blocks.0.attn.scale_mul_1H11"
    l2 = scales in arrays
    told = shapes.shape(arrays, scales, WHAT)[1] if l2 else heads or width // 64
    heads = shapes.told_heads(heads, told)
    c.name = f"VAR-d{depth}"
    c.data.num_classes = classes - 1
    c.order, c.feed = part("levels"), part("refine")
    c.mixer = part("attention", heads=heads, **(dict(qk_norm="l2") if l2 else dict(scale=0.25)), bias="qv")
    c.head = part("categorical", init_std=0.02 * (1 / (3 * width)) ** 0.5)
    c.model = dict(
        layers=depth,
        width=width,
        adaptive="shared" if "shared_ada_lin.1.weight" in arrays else "adaln",
        affine=False,
        gate_gain=GATES.get(depth, 1e-5),
        init_std=-1.0,
        init="normal",
        depth_scaled_init=True,
        drop_path=0.1 * depth / 24,
    )
    paper: dict[str, Any] = dict(guidance=1.5, guidance_schedule="ramp", top_k=900, top_p=0.96)
    c.sampling.update(paper)
    c.presets.paper = preset(count=50, **paper)
    c.presets.demo = preset(guidance=4.0, guidance_schedule="ramp", top_k=900, top_p=0.95)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    level = generator.tokenizer.grid.coords[:, 0]
    entries = shared(generator)
    entries += m.array("feed/positions/table", "pos_1LC", m.LEADING)
    entries += m.array("feed/levels/table", "lvl_embed.weight")
    entries += m.buffer("lvl_1L", lambda: level[None].astype(np.int64))
    return entries + m.buffer("attn_bias_for_masking", lambda: mask(level))


def mask(level: np.ndarray) -> np.ndarray:
    """float32 [1, 1, N, N]: 0 where a row sees another, by their levels int [N]; else -inf."""
    return np.where(level[:, None] >= level, 0.0, -np.inf)[None, None].astype(np.float32)


def stack(stage: Any, theirs: str) -> list[m.Entry]:
    """The entries of a stage's blocks, which are called `theirs` there."""
    block, name = stage.block, stage.name
    width, heads = block.width, block.mixer.heads
    ours = [f"{name}/mixer/{x}/kernel" for x in ("query", "key", "value")]

    def layer(i: int) -> list[m.Entry]:
        b = f"{theirs}.{i}"
        entries = m.split(ours, f"{b}.attn.mat_qkv.weight", [width] * 3, m.DENSE)
        entries += m.array(f"{name}/mixer/query/bias", f"{b}.attn.q_bias")
        entries += m.array(f"{name}/mixer/value/bias", f"{b}.attn.v_bias")
        entries += m.buffer(f"{b}.attn.zero_k_bias", lambda: np.zeros(width, np.float32))
        if block.mixer.qk_norm == "l2":
            shape = (1, heads, 1, 1)
            per_head = m.Form(np.ravel, lambda w: w.reshape(shape))
            entries += m.array(f"{name}/mixer/log_scale", f"{b}.attn.scale_mul_1H11", per_head)
        entries += m.dense(f"{name}/mixer/out", f"{b}.attn.proj")
        entries += m.dense(f"{name}/feed_forward/up", f"{b}.ffn.fc1")
        entries += m.dense(f"{name}/feed_forward/down", f"{b}.ffn.fc2")
        if block.adaptive == "shared":
            form = m.Form(lambda w: w[0, 0], lambda w: w[None, None])
            return entries + m.array(f"{name}/offset", f"{b}.ada_gss", form)
        return entries + m.dense(f"{name}/modulation", f"{b}.ada_lin.1")

    return m.stacked(stage.layers, layer)


def shared(generator: Any) -> list[m.Entry]:
    """The entries of all but the positions."""
    entries = m.array("condition/classes/table", "class_emb.weight")
    entries += m.array("feed/first", "pos_start", m.LEADING)
    entries += m.dense("feed/content/latents", "word_embed")
    entries += stack(generator.stages[0], "blocks")
    entries += m.dense("blocks_norm/modulation", "head_nm.ada_lin.1")
    entries += m.dense("head/out", "head")
    if generator.stages[0].block.adaptive == "shared":
        entries += m.dense("modulation/map", "shared_ada_lin.1")
    return entries
