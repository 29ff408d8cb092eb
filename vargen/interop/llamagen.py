"""LlamaGen's transformer (FoundationVision/LlamaGen, c2i_B_256.pt, t2i_XL_stage1_256.pt ...): the authors'
parameter names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.interop import mapping as m
from vargen.interop import shapes

WHAT = "LlamaGen"
IGNORED = ("freqs_cis", "causal_mask", "*.kv_cache.*")
WRAPPED = ("model",)  # in the authors' PyTorch files
# By width: the name, and the guidance of the paper's FID. Heads are 64 wide but for those of HEADS.
SIZES = {768: ("B", 2.0), 1024: ("L", 2.0), 1280: ("XL", 1.75), 1536: ("XXL", 1.75), 3200: ("3B", 1.65)}
HEADS = {3200: 32, 4096: 32}
PROJECTION = "cls_embedding.cap_proj.fc1.weight"  # of captions


def levels(arrays: Mapping[str, Any]) -> None:
    """The arrays don't tell how many slots there are: positions are rotary."""


def image_size(arrays: Mapping[str, Any]) -> int:
    """What was published at most: class-conditional models from XL on at 384 pixels alone, others at 256."""
    return 384 if PROJECTION not in arrays and shapes.shape(arrays, "norm.weight", WHAT)[0] >= 1280 else 256


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` where the authors' rule isn't followed."""
    width = shapes.shape(arrays, "norm.weight", WHAT)[0]
    layers = shapes.count(arrays, "layers.{}.attention.wo.weight", WHAT)
    heads = shapes.heads(width, heads, HEADS.get(width, width // 64), WHAT)
    groups = (shapes.shape(arrays, "layers.0.attention.wqkv.weight", WHAT)[0] * heads // width - heads) // 2
    name, guidance = SIZES.get(width, (str(width), 2.0))
    c.name = f"LlamaGen-{name}"
    if PROJECTION in arrays:
        tokens, channels = shapes.pair(arrays, "cls_embedding.uncond_embedding", WHAT)
        c.conditioning = part("caption", tokens=tokens, channels=channels, dropout=0.1)
        c.name += "-text"
        c.data.num_classes = 1
    else:
        c.data.num_classes = shapes.shape(arrays, "cls_embedding.embedding_table.weight", WHAT)[0] - 1
    c.order, c.feed = part("raster"), part("shift", dropout=0.1)
    grouped = dict(kv_heads=groups) if groups != heads else {}
    c.mixer = part("attention", heads=heads, rope="places", out_bias=False, dropout=0.1, **grouped)
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=layers,
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
    if PROJECTION in arrays:
        c.sampling.update(dict(guidance=7.5, top_k=1000))
        c.presets.demo = preset(guidance=7.5, top_k=1000)
    else:
        c.sampling.update(dict(guidance=guidance))
        resize = 256 if c.data.image_size > 256 else 0
        c.presets.paper = preset(count=50, resize=resize, labels="random", guidance=guidance)
        c.presets.demo = preset(guidance=4.0, top_k=2000)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    if generator.condition.pooled:
        entries = m.array("condition/classes/table", "cls_embedding.embedding_table.weight")
    else:
        entries = m.array("condition/null", "cls_embedding.uncond_embedding")
        entries += m.dense("condition/inner", "cls_embedding.cap_proj.fc1", bias=False)
        entries += m.dense("condition/outer", "cls_embedding.cap_proj.fc2", bias=False)
    entries += m.array("feed/content/codes/table", "tok_embeddings.weight")
    entries += blocks(generator.stages[0])
    entries += m.norm("blocks_norm/norm", "norm", bias=False)
    return entries + m.dense("head/out", "output", bias=False)


def blocks(stage: Any, first: int = 0) -> list[m.Entry]:
    """Those of the blocks of a stage, whose first is the authors' layer `first`."""
    mixer, name = stage.block.mixer, stage.name
    query, key = (n * mixer.head_dim for n in (mixer.heads, mixer.kv_heads or mixer.heads))
    ours = [f"{name}/mixer/{projection}" for projection in ("query", "key", "value")]

    def layer(i: int) -> list[m.Entry]:
        b = f"layers.{first + i}"
        entries = m.split_dense(ours, f"{b}.attention.wqkv", (query, key, key), bias=False)
        entries += m.dense(f"{name}/mixer/out", f"{b}.attention.wo", bias=False)
        for projection, theirs in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
            entries += m.dense(f"{name}/feed_forward/{projection}", f"{b}.feed_forward.{theirs}", bias=False)
        entries += m.norm(f"{name}/norm_1", f"{b}.attention_norm", bias=False)
        return entries + m.norm(f"{name}/norm_2", f"{b}.ffn_norm", bias=False)

    return m.stacked(stage.layers, layer)
