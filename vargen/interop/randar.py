"""RandAR's transformer (ziqipang/RandAR, randar_0.3b_llamagen_...): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.interop import llamagen, shapes
from vargen.interop import mapping as m

WHAT = "RandAR"
IGNORED = ("freqs_cis", "*.kv_cache.*")
WRAPPED = ()
# By width: the name, and the guidance of the paper's FID. Heads are 64 wide.
SIZES = {1024: ("L", 3.4), 1280: ("XL", 4.0), 1536: ("XXL", 4.0)}
INSTRUCTION = "pos_instruct_embeddings"


def levels(arrays: Mapping[str, Any]) -> None:
    """The arrays don't tell how many slots there are: positions are rotary."""


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` where the authors' rule isn't followed."""
    width = shapes.shape(arrays, "norm.weight", WHAT)[0]
    heads = shapes.heads(width, heads, width // 64, WHAT)
    name, guidance = SIZES.get(width, (str(width), 4.0))
    c.name = f"RandAR-{name}"
    c.data.num_classes = shapes.shape(arrays, "cls_embedding.embedding_table.weight", WHAT)[0] - 1
    c.order = part("random", schedule="cosine_ahead")
    c.feed = part("instruct", dropout=0.1)
    c.mixer = part("attention", heads=heads, rope="places", out_bias=False, dropout=0.1)
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=shapes.count(arrays, "layers.{}.attention.wo.weight", WHAT),
        width=width,
        mlp="swiglu",
        mlp_width=shapes.shape(arrays, "layers.0.feed_forward.w1.weight", WHAT)[0],
        norm="rms",
        eps=1e-5,
        bias=False,
        init_std=0.02,
        init="normal",
        dropout=0.1,
    )
    best: dict[str, Any] = dict(guidance=guidance, guidance_schedule="linear_before", steps=88)
    c.sampling.update(best)
    c.presets.paper = preset(count=50, **best)
    c.presets.demo = preset(guidance=4.0, guidance_schedule="linear_before", steps=88)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes: LlamaGen's, and the instruction."""
    return llamagen.table(generator) + m.array("feed/instruction", INSTRUCTION)
