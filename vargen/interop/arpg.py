"""ARPG's transformer (hp-l33/ARPG, arpg_300m.pt ...): the authors' parameter names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes

WHAT = "ARPG"
IGNORED = ("freqs_cis", "*.k_cache", "*.v_cache")
WRAPPED = ("state_dict",)
# By width: the name, and the guidance of the paper's FID. Heads are 64 wide.
SIZES = {1024: ("L", 5.0), 1280: ("XL", 6.0), 1536: ("XXL", 7.5)}
SPARE = 1  # rows of the table that nothing uses


def levels(arrays: Mapping[str, Any]) -> None:
    """The arrays don't tell how many slots there are: positions are rotary."""


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` where the authors' rule isn't followed."""
    width = shapes.shape(arrays, "norm.weight", WHAT)[0]
    vocab, rows = (shapes.shape(arrays, name, WHAT)[0] for name in ("head.weight", "embeddings.weight"))
    heads = shapes.heads(width, heads, width // 64, WHAT)
    if rows < vocab + 4:
        raise UserError(
            f"{WHAT}: expected in embeddings.weight {vocab} codes, a mask, classes, none and a spare row, found {rows}"
        )
    name, guidance = SIZES.get(width, (str(width), 5.0))
    c.name = f"ARPG-{name}"
    c.data.num_classes = rows - vocab - 3
    c.order = part("random", schedule="arccos_left")
    c.feed = part("query", dropout=0.1)
    c.mixer = part("attention", heads=heads, rope="places", out_bias=False, dropout=0.1)
    c.head = part("categorical", bias=False)
    stages = ("layers.self_dec.{}.attn.to_q.weight", "layers.cross_dec.{}.attn.to_q.weight")
    c.model = dict(
        layers=tuple(shapes.count(arrays, stage, WHAT) for stage in stages),
        width=width,
        mlp="swiglu",
        mlp_width=shapes.shape(arrays, "layers.self_dec.0.ffn.w1.weight", WHAT)[0],
        norm="rms",
        eps=1e-5,
        bias=False,
        init_std=0.02,
        init="normal",
        dropout=0.1,
    )
    best: dict[str, Any] = dict(guidance=guidance, guidance_schedule="linear_after", steps=64)
    c.sampling.update(best)
    c.presets.paper = preset(count=50, **best)
    c.presets.demo = preset(guidance=4.0, guidance_schedule="linear_after", steps=64)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    width, vocab = generator.width, generator.tokenizer.vocab

    def layers(ours: str, theirs: str, projections: tuple[str, ...]):
        def layer(i: int) -> list[m.Entry]:
            b, entries = f"{theirs}.{i}", []
            for name, projection in zip(("out", "query", "key", "value"), projections, strict=False):
                entries += m.dense(f"{ours}/mixer/{name}", f"{b}.attn.{projection}", bias=False)
            for name, projection in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
                entries += m.dense(f"{ours}/feed_forward/{name}", f"{b}.ffn.{projection}", bias=False)
            entries += m.norm(f"{ours}/norm_1", f"{b}.attn_norm", bias=False)
            return entries + m.norm(f"{ours}/norm_2", f"{b}.ffn_norm", bias=False)

        return layer

    # Codes, the question, classes and none, and a spare row: one table there, three arrays here.
    entries = [
        m.Entry(
            ("feed/content/codes/table", "feed/question", "condition/classes/table"),
            ("embeddings.weight",),
            lambda w: (w[:vocab], w[vocab : vocab + 1], w[vocab + 1 : len(w) - SPARE]),
            lambda codes, question, labels: (
                np.concatenate([codes, question, labels, np.zeros((SPARE, width), codes.dtype)]),
            ),
        )
    ]
    first, second = generator.stages
    entries += m.stacked(first.layers, layers("content", "layers.self_dec", ("proj", "to_q", "to_k", "to_v")))
    entries += m.stacked(second.layers, layers("query", "layers.cross_dec", ("proj", "to_q")))
    entries += m.norm("content_norm/norm", "layers.norm", bias=False)
    entries += m.dense("feed/key", "layers.to_k", bias=False) + m.dense(
        "feed/value", "layers.to_v", bias=False
    )
    return entries + m.norm("query_norm/norm", "norm", bias=False) + m.dense("head/out", "head", bias=False)
