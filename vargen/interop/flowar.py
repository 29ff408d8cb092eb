"""FlowAR's transformer and flow network (OliverRensu/FlowAR, FlowAR-S.pth ...): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes
from vargen.interop.flowar_kl import LEVELS
from vargen.interop.var import mask
from vargen.interop.xar import attention, gated, stack

WHAT = "FlowAR"
IGNORED = ("*.rope.freqs",)
WRAPPED = ()
# By width: the name, the heads; passes of the flow, guidance and the time up to which it acts, of the paper's FID.
SIZES = {
    768: ("S", 12, 25, 4.3, 0.9),
    1024: ("L", 16, 25, 2.4, 0.9),
    1536: ("H", 16, 50, 2.4, 0.7),
}
POSITIONS = "encoder_pos_embed_learned"


def levels(arrays: Mapping[str, Any]) -> tuple[int, ...]:
    """Sides of the scales, coarse to fine: 1, 2, 4, ...

    Raises:
      UserError: another number of rows than they add up to.
    """
    rows, sides = shapes.shape(arrays, POSITIONS, WHAT)[1], [1]
    while sum(s * s for s in sides) < rows:
        sides.append(2 * sides[-1])
    if sum(s * s for s in sides) != rows:
        raise UserError(f"{WHAT}: expected rows of the scales {LEVELS} or fewer of {POSITIONS}, found {rows}")
    return tuple(sides)


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` for widths that were never published (64 wide).

    Raises:
      UserError: slots of several latents.
    """
    width = shapes.from_latents(arrays, "z_proj.weight", c.tokenizer.channels, WHAT)
    known = (str(width), width // 64, 25, 2.4, 0.9)
    name, usual, passes, guidance, until = SIZES.get(width, known)
    stages = ("encoder", "decoder")
    layers = tuple(shapes.count(arrays, f"{s}_blocks.{{}}.attn.proj.weight", WHAT) for s in stages)
    depth = shapes.count(arrays, "flownet.res_blocks.{}.attn.proj.weight", WHAT)
    c.name = f"FlowAR-{name}"
    c.data.num_classes = shapes.shape(arrays, "class_emb.weight", WHAT)[0] - 1
    c.order = part("levels")
    c.feed = part("refine", places="slots_alone", coords="picture", encoder_decoder=True)
    c.mixer = part(
        "attention",
        heads=shapes.heads(width, heads, usual, WHAT),
        bias="qkv",
        rope="places",
        dropout=0.1,
        weight_dropout=0.1,
    )
    c.head = part(
        "flow",
        depth=depth,
        width=shapes.shape(arrays, "flownet.input_proj.weight", WHAT)[0],
        cross="flownet.res_blocks.0.crossattn.q.weight" in arrays,
        sample_steps=passes,
        times="even" if passes == 50 else "late",
        guidance_until=until,
    )
    c.model = dict(
        layers=sum(layers) if layers[0] == layers[1] else layers,
        width=width,
        mlp="geglu",
        mlp_width=shapes.shape(arrays, "encoder_blocks.0.mlp.fc1_g.weight", WHAT)[0],
        norm="rms",
        affine=False,
        adaptive="adaln",
        final_norm="learned",
        gate_gain=1.0,
        init_std=0.0,
        dropout=0.1,
    )
    best: dict[str, Any] = dict(guidance=guidance - 1, guidance_schedule="ramp")
    c.sampling.update(best)
    c.presets.paper = preset(count=50, **best)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    head = generator.head
    entries = m.array("condition/classes/table", "class_emb.weight")
    entries += m.dense("feed/content/latents", "z_proj")
    entries += m.norm("feed/content_norm", "z_proj_ln", bias=False)
    entries += m.array("feed/positions/table", POSITIONS, m.LEADING)
    entries += m.array("feed/decoder_positions/table", "decoder_pos_embed_learned", m.LEADING)
    entries += m.array("feed/targets/table", "diffusion_pos_embed_learned", m.LEADING)
    entries += m.dense("feed/bridge", "decoder_embed")
    for stage in generator.stages:
        entries += stack(stage)
    ours, theirs = "head/network", "flownet"
    entries += m.dense(f"{ours}/time_1", f"{theirs}.time_embed.mlp.0")
    entries += m.dense(f"{ours}/time_2", f"{theirs}.time_embed.mlp.2")
    entries += m.dense(f"{ours}/hidden", f"{theirs}.cond_embed")
    entries += m.dense(f"{ours}/content", f"{theirs}.input_proj")
    for i in range(head.depth):
        a, b = f"{ours}/block_{i}", f"{theirs}.res_blocks.{i}"
        entries += attention(f"{a}/attention", f"{b}.attn", head.width, bias=False)
        entries += gated(f"{a}/feed_forward", f"{b}.mlp")
        if head.cross:
            entries += m.dense(f"{a}/cross/query", f"{b}.crossattn.q", bias=False)
            both = [f"{a}/cross/key", f"{a}/cross/value"]
            entries += m.split_dense(both, f"{b}.crossattn.kv", [head.width] * 2, False)
            entries += m.dense(f"{a}/cross/out", f"{b}.crossattn.proj")
            entries += m.norm(f"{a}/norm_row", f"{b}.norm2_1", bias=False)
            entries += m.norm(f"{a}/norm_hidden", f"{b}.norm2_2", bias=False)
            entries += m.dense(f"{a}/modulation_time", f"{b}.ada_lin_attn")
            entries += m.dense(f"{a}/modulation", f"{b}.ada_lin_mlp")
        else:
            entries += m.dense(f"{a}/modulation", f"{b}.ada_lin")
    entries += m.dense(f"{ours}/modulation_out", f"{theirs}.final_layer.adaLN_modulation.1")
    entries += m.dense(f"{ours}/out", f"{theirs}.final_layer.linear")
    return entries + m.buffer("mask", lambda: mask(generator.tokenizer.grid.coords[:, 0]))
