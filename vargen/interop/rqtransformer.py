"""RQ-Transformer (kakaobrain/rq-vae-transformer, stage2/model.pt): the authors' names beside ours."""

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

WHAT = "RQ-Transformer"
IGNORED = ()
WRAPPED = ("state_dict",)
# By layers and width, of models of classes; heads are 64 wide.
SIZES = {(12, 1536): "480M", (24, 1536): "821M", (42, 1536): "1.4B", (42, 2560): "3.8B"}
BLOCK = "{}_transformer.blocks.{{}}.ln1.weight"


def levels(arrays: Mapping[str, Any]) -> tuple[int, ...]:
    """The side of the grid: there is a position for each slot."""
    return (math.isqrt(shapes.shape(arrays, "pos_emb_hw", WHAT)[1]),)


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` where the authors' rule isn't followed.

    Raises:
      UserError: arrays that tell sizes are missing; a model of captions.
    """
    width, rows = shapes.shape(arrays, "pos_emb_d", WHAT)[2], shapes.shape(arrays, "pos_emb_cond", WHAT)[1]
    if rows != 1:
        raise UserError(f"{WHAT}: expected a model of classes or of none, found one of {rows} words")
    layers, depth = (shapes.count(arrays, BLOCK.format(name), WHAT) for name in ("body", "head"))
    classes, vocab = (
        shapes.shape(arrays, name, WHAT)[0] for name in ("cond_emb.weight", "classifier.linear.weight")
    )
    heads = shapes.heads(width, heads, width // 64, WHAT)
    name = SIZES.get((layers, width), str(width)) if classes > 1 else "FFHQ" if vocab == 2048 else "LSUN"
    c.name = f"RQ-Transformer-{name}"
    c.data.num_classes = classes
    c.conditioning = part("label", dropout=None)
    c.order, c.feed = part("raster"), part("shift", positions=True, vectors=True)
    c.mixer = part("attention", heads=heads, bias="qkv", dropout=0.1)
    c.head = part("depth", layers=depth)
    c.model = dict(
        layers=layers,
        width=width,
        mlp="gelu",
        eps=1e-5,
        final_norm="none",
        init_std=0.02,
        init="normal",
        dropout=0.1,
    )
    best: dict[str, Any] = dict(top_p=0.92) if classes > 1 else dict(top_k=250)
    c.sampling.update(best)
    c.presets.paper = preset(count=50, **best)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    entries = m.array("condition/classes/table", "cond_emb.weight") + places(generator.condition.length)
    entries += m.dense("feed/content/latents", "input_mlp") + m.dense("head/inner", "head_mlp")
    entries += stacks(generator) + m.norm("head/stage/blocks_norm/norm", "classifier.layer_norm")
    return entries + m.array("head/places", "pos_emb_d", m.LEADING) + m.dense("head/out", "classifier.linear")


def places(prefix: int) -> list[m.Entry]:
    """Those of the positions: of the condition's `prefix` rows, then of the slots."""
    return [
        m.Entry(
            ("feed/places/table",),
            ("pos_emb_cond", "pos_emb_hw"),
            lambda first, others: (np.concatenate([first[0], others[0]]),),
            lambda w: (w[None, :prefix], w[None, prefix:]),
        )
    ]


def stacks(generator: Any) -> list[m.Entry]:
    """Those of the blocks, over places and over depths."""
    entries = stack("blocks", "body_transformer", generator.stages[0].layers)
    return entries + stack("head/stage/blocks", "head_transformer", generator.head.blocks.layers)


def stack(ours: str, theirs: str, count: int) -> list[m.Entry]:
    """Those of `count` blocks as minGPT names them, of our stage and their module."""

    def layer(i: int) -> list[m.Entry]:
        b, found = f"{theirs}.blocks.{i}", []
        for name, projection in (("query", "query"), ("key", "key"), ("value", "value"), ("out", "proj")):
            found += m.dense(f"{ours}/mixer/{name}", f"{b}.attn.{projection}")
        found += m.dense(f"{ours}/feed_forward/up", f"{b}.mlp.0")
        found += m.dense(f"{ours}/feed_forward/down", f"{b}.mlp.2")
        return found + m.norm(f"{ours}/norm_1", f"{b}.ln1") + m.norm(f"{ours}/norm_2", f"{b}.ln2")

    return m.stacked(count, layer)
