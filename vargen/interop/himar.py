"""Hi-MAR's transformer and both heads (HiDream-ai/himar, checkpoint-last.pth): the authors' names beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import mar, shapes
from vargen.layers import place_waves

WHAT = "Hi-MAR"
IGNORED = ()
WRAPPED = mar.WRAPPED
# By width: the name, the heads, steps of the dense level; guidance of that and of the pivots, of the paper's FID.
SIZES = {768: ("B", 12, 4, 2.5, 2.7), 1024: ("L", 16, 4, 3.5, 3.5), 1280: ("H", 16, 12, 3.2, 5.5)}
# Theirs: scale and gate of the attention, then of the MLP; ours: gates, then scales.
QUARTERS = (1, 3, 0, 2)
BY_ROUND = m.Form(
    lambda w: w.reshape(len(w), 4, -1)[:, QUARTERS],
    lambda w: w[:, np.argsort(QUARTERS)].reshape(len(w), 1, 1, -1),
)


def levels(arrays: Mapping[str, Any]) -> tuple[int, int]:
    """The sides of both levels."""
    pivots = shapes.shape(arrays, "cond_tokens", WHAT)[1]
    slots = shapes.shape(arrays, "diffusion_pos_embed_learned", WHAT)[1]
    return math.isqrt(pivots), math.isqrt(slots - pivots)


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` for widths that were never published (64 wide).

    Raises:
      UserError: slots of several latents.
    """
    mar.fill(c, arrays, heads)
    width = c.model.width
    name, _, steps, guidance, before = SIZES.get(width, (str(width), 0, 4, 3.5, 3.5))
    pivots, side = levels(arrays)
    slots = pivots**2 + side**2
    c.name = f"Hi-MAR-{name}"
    c.order = part("level_sets", steps=(min(32, pivots**2), min(steps, side**2)))
    rows = shapes.shape(arrays, "encoder_pos_embed_learned", WHAT)[1]
    c.feed = part("pivots", buffer=rows // 2 - slots)
    net = "cond_diffloss.net"
    wide = shapes.shape(arrays, f"{net}.x_embedder.proj.weight", WHAT)[0]
    depth = shapes.count(arrays, f"{net}.blocks.{{}}.attn.proj.weight", WHAT)
    picture = part("dit", depth=depth, width=wide, heads=max(wide // 64, 1), sample_steps=250)
    c.head.repeat = 1
    c.head = part("rounds", heads=dict(pivots=c.head, picture=picture), weights=(0.4, 0.6))
    c.model.adaptive = "rounds"
    best: dict[str, Any] = dict(guidance=guidance, guidance_before=(before,), guidance_schedule="linear")
    c.sampling.update(best)
    c.presets.paper = preset(count=50, **best)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes.

    Raises:
      UserError: the generator's blocks aren't modulated by the round.
    """
    if any(stage.rounds is None for stage in generator.stages):
        raise UserError(f"{WHAT}: expected blocks that the round modulates, found others")
    entries = mar.rows(generator) + m.array("feed/mask/table", "mask_token", m.LEADING)
    entries += m.dense("feed/pivot/latents", "cond_proj") + m.dense("feed/hidden_pivot", "cond_z_proj")
    entries += m.array("feed/no_pivot", "cond_tokens", m.LEADING)
    for stage in generator.stages:
        name = stage.name

        def of_rounds(block: str, name: str = name) -> list[m.Entry]:
            entries = m.array(f"{name}/factor", f"{block}.adaLN_scale", BY_ROUND)
            return entries + m.array(f"{name}/offset", f"{block}.adaLN_shift", BY_ROUND)

        entries += mar.stack(name, stage.layers, generator.width, of_rounds)
        entries += m.array(f"{name}_rounds/table", f"{name}_task_emb.weight")
        there = f"{name}_blocks_ada.1"
        entries += m.permuted(f"{name}_rounds/map/kernel", f"{there}.weight", QUARTERS, m.DENSE)
        entries += m.permuted(f"{name}_rounds/map/bias", f"{there}.bias", QUARTERS)
    pivots, picture = (generator.head.heads[name] for name in ("pivots", "picture"))
    entries += mar.denoiser("head/heads_pivots/denoiser", "diffloss.net", pivots.depth)
    return entries + _dit("head/heads_picture/network", "cond_diffloss.net", picture)


def _dit(ours: str, net: str, head: Any) -> list[m.Entry]:
    """The network over all slots of the dense level."""
    entries = m.dense(f"{ours}/time_1", f"{net}.t_embedder.mlp.0")
    entries += m.dense(f"{ours}/time_2", f"{net}.t_embedder.mlp.2")
    entries += m.pointwise(f"{ours}/hidden", f"{net}.c_embedder.proj")
    entries += m.pointwise(f"{ours}/content", f"{net}.x_embedder.proj")
    for i in range(head.depth):
        a, b = f"{ours}/block_{i}", f"{net}.blocks.{i}"
        names = [f"{a}/{part}" for part in ("query", "key", "value")]
        entries += m.split_dense(names, f"{b}.attn.qkv", [head.width] * 3) + m.dense(
            f"{a}/out", f"{b}.attn.proj"
        )
        entries += m.dense(f"{a}/feed_forward/up", f"{b}.mlp.fc1") + m.dense(
            f"{a}/feed_forward/down", f"{b}.mlp.fc2"
        )
        entries += m.dense(f"{a}/modulation", f"{b}.adaLN_modulation.1")
    entries += m.dense(f"{ours}/modulation_out", f"{net}.final_layer.adaLN_modulation.1")
    entries += m.dense(f"{ours}/out", f"{net}.final_layer.linear")
    waves = place_waves(head.places, head.width)[None]
    entries += m.buffer(f"{net}.pos_embed", lambda: waves)
    return entries + m.buffer(f"{net}.c_pos_embed", lambda: np.zeros_like(waves))
