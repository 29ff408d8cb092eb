"""xAR's transformer (OliverRen/xAR, xAR-B.pth ...): the authors' parameter names beside ours."""

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

WHAT = "xAR"
IGNORED = ("mask", "*.attn.rope.freqs*")
WRAPPED = ()
# By width: the name, the heads, the passes for a cell, and the guidance of the paper's FID.
SIZES = {768: ("B", 12, 40, 2.7), 1024: ("L", 16, 50, 2.3), 1280: ("H", 16, 50, 2.2)}


def levels(arrays: Mapping[str, Any]) -> tuple[int]:
    """The side of the grid."""
    return (math.isqrt(shapes.shape(arrays, "encoder_pos_embed_learned", WHAT)[1]),)


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` for widths that the authors don't have (64 wide).

    Raises:
      UserError: slots of several latents.
    """
    width = shapes.from_latents(arrays, "z_proj.weight", c.tokenizer.channels, WHAT)
    name, known, passes, guidance = SIZES.get(width, (str(width), width // 64, 50, 2.3))
    layers = tuple(
        shapes.count(arrays, f"{stage}_blocks.{{}}.attn.proj.weight", WHAT)
        for stage in ("encoder", "decoder")
    )
    c.name = f"xAR-{name}"
    c.data.num_classes = shapes.shape(arrays, "class_emb.weight", WHAT)[0] - 1
    c.order = part("cells", count=(2, 2))
    c.feed = part("noisy", clean=False, encoder_decoder=True, positions=True, norm="rms")
    c.mixer = part("attention", heads=shapes.heads(width, heads, known, WHAT), bias="qkv", rope="places")
    c.mixer.update(dict(dropout=0.1, in_gain=0.5**0.5, weight_dropout=0.1))
    c.head = part("velocity", sample_steps=passes, zero=False)
    c.model = dict(
        layers=sum(layers) if layers[0] == layers[1] else layers,
        width=width,
        mlp="geglu",
        mlp_width=shapes.shape(arrays, "encoder_blocks.0.mlp.fc1_g.weight", WHAT)[0],
        norm="rms",
        affine=False,
        adaptive="adaln",
        final_norm="learned",
        gate_gain=0.5,
        init_std=0.0,
        init="normal",
        dropout=0.1,
    )
    # Their scale w of the last cell: 1 + t with t = w - 1.
    paper: dict[str, Any] = dict(guidance=guidance - 1, guidance_schedule="ramp")
    c.sampling.update(paper)
    c.presets.paper = preset(count=50, **paper)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes.

    Raises:
      UserError: the generator has other stages than an encoder and a decoder.
    """
    names = [stage.name for stage in generator.stages]
    if names != ["encoder", "decoder"]:
        raise UserError(f"{WHAT}: expected an encoder and a decoder, found {', '.join(names)}")
    # Their tables of places are in the sequence of generation.
    slots = np.asarray(generator.ordering.decoding(None, 1).slots)
    placed = m.Form(lambda w: w[0][np.argsort(slots)], lambda w: w[slots][None])
    entries = m.array("condition/classes/table", "class_emb.weight")
    entries += m.dense("feed/content/latents", "z_proj") + m.norm(
        "feed/content_norm", "z_proj_ln", bias=False
    )
    entries += m.dense("feed/time_1", "time_embed.mlp.0") + m.dense("feed/time_2", "time_embed.mlp.2")
    for i, stage in enumerate(generator.stages):
        entries += m.array(f"feed/tables_{i}/table", f"{stage.name}_pos_embed_learned", placed)
        entries += stack(stage)
    return entries + m.dense("feed/bridge", "decoder_embed") + m.dense("head/out", "pred")


def stack(stage: Any) -> list[m.Entry]:
    """Those of a stage, the encoder or the decoder, with its norm; also FlowAR's."""
    name, width = stage.name, stage.block.width

    def layer(i: int) -> list[m.Entry]:
        b = f"{name}_blocks.{i}"
        entries = attention(f"{name}/mixer", f"{b}.attn", width)
        entries += gated(f"{name}/feed_forward", f"{b}.mlp")
        return entries + m.dense(f"{name}/modulation", f"{b}.ada_lin.1")

    return m.stacked(stage.layers, layer) + m.norm(f"{name}_norm/norm", f"{name}_norm", bias=False)


def attention(ours: str, theirs: str, width: int, bias: bool = True) -> list[m.Entry]:
    """Query, key and value, which are one linear layer there, and the one behind."""
    names = [f"{ours}/{part}" for part in ("query", "key", "value")]
    return m.split_dense(names, f"{theirs}.qkv", [width] * 3, bias) + m.dense(f"{ours}/out", f"{theirs}.proj")


def gated(ours: str, theirs: str) -> list[m.Entry]:
    """A gated MLP."""
    pairs = (("gate", "fc1_g"), ("up", "fc1_x"), ("down", "fc2"))
    return [entry for a, b in pairs for entry in m.dense(f"{ours}/{a}", f"{theirs}.{b}")]
