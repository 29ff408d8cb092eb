"""DnD-Transformer (chenllliang/DnD-Transformer, xxl_model.pt ...): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.interop import llamagen, shapes
from vargen.interop import mapping as m

WHAT = "DnD-Transformer"
IGNORED = ("freqs_cis", "causal_mask", "*.kv_cache.*")
WRAPPED = ("model",)
# By width, of models of classes: the name, and the guidance of the paper's FID. Heads are 64 wide.
SIZES = {1536: ("XXL", 2.0), 2048: ("XXXL", 1.7)}
# Layers of each stage, by layers and codes, which the arrays don't tell; of others the last ones are a stage each.
STAGES = {(48, 1): (48,), (48, 2): (40, 8), (48, 8): (27, 3, 3, 3, 3, 3, 3, 3)}


def levels(arrays: Mapping[str, Any]) -> None:
    """The arrays don't tell how many slots there are: positions are rotary."""


def image_size(arrays: Mapping[str, Any]) -> int:
    """384 pixels of those with one code a slot, which draw text, else 256."""
    return 384 if shapes.count(arrays, "output.{}.weight", WHAT) == 1 else 256


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` where the authors' rule isn't followed.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    width = shapes.shape(arrays, "norm.0.weight", WHAT)[0]
    codes = shapes.count(arrays, "output.{}.weight", WHAT)
    layers = shapes.count(arrays, "layers.{}.attention.wo.weight", WHAT)
    heads = shapes.heads(width, heads, width // 64, WHAT)
    rows = shapes.shape(arrays, "cls_embedding.embedding_table.weight", WHAT)[0]
    name, guidance = SIZES.get(width, (str(width), 2.0))
    c.data.num_classes = max(rows - 1, 1)
    c.conditioning = part("label", dropout=0.1)
    if rows == 1:
        name = "text" if codes == 1 else "arxiv"
        c.conditioning = part("label", dropout=None)
    c.name = f"DnD-Transformer-{name}"
    c.order, c.feed, c.head = part("raster"), part("staged", dropout=0.1), part("staged")
    c.mixer = part("attention", heads=heads, rope="places", out_bias=False, dropout=0.1)
    c.model = dict(
        layers=STAGES.get((layers, codes), (layers - codes + 1, *[1] * (codes - 1))),
        width=width,
        mlp="swiglu",
        mlp_width=shapes.shape(arrays, "layers.0.feed_forward.w1.weight", WHAT)[0],
        norm="rms",
        eps=1e-5,
        final_norm="none",
        bias=False,
        init_std=0.02,
        init="normal",
        dropout=0.1,
    )
    best: dict[str, Any] = dict(guidance=guidance) if rows > 1 else dict(temperature=0.1)
    c.sampling.update(best)
    c.presets.paper = preset(count=50, **best)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    entries = m.array("condition/classes/table", "cls_embedding.embedding_table.weight")
    entries += m.array("feed/content/codes/table", "tok_embeddings.weight")
    first = 0
    for i, stage in enumerate(generator.stages):
        entries += llamagen.blocks(stage, first)
        entries += m.norm(f"head/norms_{i}", f"norm.{i}", bias=False)
        entries += m.dense(f"head/codes_{i}/out", f"output.{i}", bias=False)
        first += stage.layers
    return entries
