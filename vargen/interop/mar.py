"""MAR's transformer and denoiser (LTH14/mar, checkpoint-last.pth): the authors' parameter names beside ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes

WHAT = "MAR"
IGNORED = ()
WRAPPED = ("model", "model_ema")  # in the authors' PyTorch files
# By width: the name, the heads, and the guidance of the paper's FID.
SIZES = {768: ("B", 12, 2.9), 1024: ("L", 16, 3.0), 1280: ("H", 16, 3.2)}


def levels(arrays: Mapping[str, Any]) -> tuple[int]:
    """The side of the grid."""
    return (math.isqrt(shapes.shape(arrays, "diffusion_pos_embed_learned", WHAT)[1]),)


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` for widths that the authors don't have (64 wide).

    Raises:
      UserError: slots of several latents.
    """
    width = shapes.from_latents(arrays, "z_proj.weight", c.tokenizer.channels, WHAT)
    stages = ("encoder", "decoder")
    layers = tuple(shapes.count(arrays, f"{name}_blocks.{{}}.attn.proj.weight", WHAT) for name in stages)
    name, known, guidance = SIZES.get(width, (str(width), width // 64, 3.0))
    slots = shapes.shape(arrays, "diffusion_pos_embed_learned", WHAT)[1]
    c.name = f"MAR-{name}"
    c.data.num_classes = shapes.shape(arrays, "class_emb.weight", WHAT)[0]
    c.order = part("random_sets", steps=min(256, slots))
    c.feed = part("mask", buffer=shapes.shape(arrays, "encoder_pos_embed_learned", WHAT)[1] - slots)
    c.mixer = part(
        "attention",
        heads=heads or known,
        bias="qkv",
        in_gain=0.5**0.5,
        dropout=0.1,
        weight_dropout=0.1,
    )
    c.head = part(
        "diffusion",
        depth=shapes.count(arrays, "diffloss.net.res_blocks.{}.in_ln.weight", WHAT),
        width=shapes.shape(arrays, "diffloss.net.input_proj.weight", WHAT)[0],
        sample_steps=100,
        repeat=4,
    )
    c.model = dict(
        layers=sum(layers) if layers[0] == layers[1] else layers,
        width=width,
        mlp="gelu",
        init_std=0.0,
        init="normal",
        dropout=0.1,
    )
    paper: dict[str, Any] = dict(guidance=guidance, guidance_schedule="linear")
    c.sampling.update(paper)
    c.presets.paper = preset(count=50, steps=min(256, slots), **paper)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes.

    Raises:
      UserError: the generator has other stages than an encoder and a decoder.
    """
    depths = {stage.name: stage.layers for stage in generator.stages}
    if set(depths) != {"encoder", "decoder"}:
        raise UserError(f"{WHAT}: expected an encoder and a decoder, found {', '.join(depths)}")
    entries = rows(generator) + m.array("feed/mask", "mask_token", m.LEADING)
    for name, layers in depths.items():
        entries += stack(name, layers, generator.width)
    return entries + denoiser("head/denoiser", "diffloss.net", generator.head.depth)


def rows(generator: Any) -> list[m.Entry]:
    """What rows are made of."""
    # The condition that stands for no class is an array of its own.
    table, sources = "condition/classes/table", ("class_emb.weight", "fake_latent")
    entries = m.joined(table, sources, (generator.condition.num_classes, 1))
    entries += m.dense("feed/content/latents", "z_proj") + m.norm("feed/content_norm", "z_proj_ln")
    entries += m.array("feed/positions/table", "encoder_pos_embed_learned", m.LEADING)
    entries += m.array("feed/decoder_positions/table", "decoder_pos_embed_learned", m.LEADING)
    entries += m.array("feed/targets/table", "diffusion_pos_embed_learned", m.LEADING)
    return entries + m.dense("feed/bridge", "decoder_embed")


def stack(
    name: str, layers: int, width: int, more: Callable[[str], list[m.Entry]] | None = None
) -> list[m.Entry]:
    """The blocks of a stage and the norm behind them; `more` of a block, by its name there."""

    def layer(i: int) -> list[m.Entry]:
        b = f"{name}_blocks.{i}"
        ours = [f"{name}/mixer/{part}" for part in ("query", "key", "value")]
        entries = m.split_dense(ours, f"{b}.attn.qkv", [width] * 3)
        entries += m.dense(f"{name}/mixer/out", f"{b}.attn.proj")
        entries += m.dense(f"{name}/feed_forward/up", f"{b}.mlp.fc1")
        entries += m.dense(f"{name}/feed_forward/down", f"{b}.mlp.fc2")
        entries += m.norm(f"{name}/norm_1", f"{b}.norm1") + m.norm(f"{name}/norm_2", f"{b}.norm2")
        return entries + (more(b) if more else [])

    return m.stacked(layers, layer) + m.norm(f"{name}_norm/norm", f"{name}_norm")


def denoiser(ours: str, net: str, depth: int) -> list[m.Entry]:
    """The denoiser of a slot."""
    entries = m.dense(f"{ours}/time_1", f"{net}.time_embed.mlp.0")
    entries += m.dense(f"{ours}/time_2", f"{net}.time_embed.mlp.2")
    entries += m.dense(f"{ours}/hidden", f"{net}.cond_embed")
    entries += m.dense(f"{ours}/content", f"{net}.input_proj")
    for i in range(depth):
        b = f"{net}.res_blocks.{i}"
        entries += m.norm(f"{ours}/norm_{i}", f"{b}.in_ln")
        entries += m.dense(f"{ours}/inner_{i}", f"{b}.mlp.0")
        entries += m.dense(f"{ours}/outer_{i}", f"{b}.mlp.2")
        entries += m.dense(f"{ours}/modulation_{i}", f"{b}.adaLN_modulation.1")
    entries += m.dense(f"{ours}/modulation_out", f"{net}.final_layer.adaLN_modulation.1")
    return entries + m.dense(f"{ours}/out", f"{net}.final_layer.linear")
