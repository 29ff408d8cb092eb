"""The convolutional autoencoder under its authors' names; the published ones differ in names alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.conv import ConvDecoder, ConvEncoder


@dataclasses.dataclass(frozen=True)
class Names:
    """How a family calls the pieces.

    Attributes:
      down, up: list of levels in the encoder and in the decoder.
      reversed_up: the decoder's list starts at the lowest resolution.
      block: list of residual blocks in a level.
      middle: residual block, attention, residual block.
      fused: attention keeps query, key and value in one array.
      down_conv, up_conv: the convolutions between levels.
      shortcut: of a block that widens.
      norm_out: of both ends.
      attention: its norm, query, key, value (or `fused` the one array) and the projection out.
      linear: attention keeps linear layers, not 1x1 convolutions.
    """

    down: str
    up: str
    reversed_up: bool
    block: str
    middle: tuple[str, str, str]
    fused: bool
    down_conv: str = "downsample.conv"
    up_conv: str = "upsample.conv"
    shortcut: str = "nin_shortcut"
    norm_out: str = "norm_out"
    attention: tuple[str, ...] = ("norm", "q", "k", "v", "proj_out")
    linear: bool = False


DIFFUSION = Names("down", "up", False, "block", ("mid.block_1", "mid.attn_1", "mid.block_2"), False)
VAR = dataclasses.replace(DIFFUSION, fused=True, attention=("norm", "qkv", "proj_out"))
DIFFUSERS = Names(
    down="down_blocks",
    up="up_blocks",
    reversed_up=True,
    block="resnets",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    fused=False,
    down_conv="downsamplers.0.conv",
    up_conv="upsamplers.0.conv",
    shortcut="conv_shortcut",
    norm_out="conv_norm_out",
    attention=("group_norm", "query", "key", "value", "proj_attn"),
    linear=True,
)
LLAMAGEN = Names("conv_blocks", "conv_blocks", True, "res", ("mid.0", "mid.1", "mid.2"), False)


def encoder_part(arrays: Mapping[str, Any], names: Names, what: str) -> ConfigDict:
    """The encoder's part with the sizes of the arrays; options at their defaults are left out.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    width = shapes.shape(arrays, "encoder.conv_in.weight", what)[0]
    block = f"encoder.{names.down}.{{}}.{names.block}.{{}}.conv1.weight"
    depth = shapes.count(arrays, block.format("{}", 0), what)
    multipliers = tuple(shapes.shape(arrays, block.format(i, 0), what)[0] // width for i in range(depth))
    latents = shapes.shape(arrays, "post_quant_conv.weight", what)
    found = dict(
        width=width,
        multipliers=multipliers,
        blocks=shapes.count(arrays, block.format(0, "{}"), what),
        hidden=latents[0] if latents[0] != latents[1] else 0,
        projection=latents[2],
        **{
            f"{end}_attention": _attention_levels(arrays, f"{end}.{getattr(names, list_)}", depth, reverse)
            for end, list_, reverse in (("encoder", "down", False), ("decoder", "up", names.reversed_up))
        },
    )
    usual = dict(
        width=128,
        multipliers=(1, 1, 2, 2, 4),
        blocks=2,
        hidden=0,
        projection=1,
        encoder_attention=True,
        decoder_attention=True,
    )
    return part("conv", **{k: v for k, v in found.items() if v != usual[k]})


def _attention_levels(arrays, levels: str, depth: int, reverse: bool) -> bool | tuple[int, ...]:
    """Where there is attention, as the option of the encoder "conv" says it."""
    found = [i for i in range(depth) if f"{levels}.{i}.attn.0.norm.weight" in arrays]
    if reverse:
        found = [depth - 1 - i for i in reversed(found)]
    return tuple(found) if found not in ([], [depth - 1]) else bool(found)


def table(tokenizer: Autoencoder, names: Names) -> list[m.Entry]:
    """Entries of encoder and decoder, with the projections that the authors keep beside them.

    Raises:
      UserError: the tokenizer's encoder is not "conv".
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    if not isinstance(encoder, ConvEncoder) or not isinstance(decoder, ConvDecoder):
        raise UserError(f"tokenizer: expected the encoder conv, found {type(encoder).__name__}")
    entries = m.conv("encoder/projection", "quant_conv") + m.conv("decoder/projection", "post_quant_conv")
    return entries + ends(encoder, decoder, names)


def ends(encoder: ConvEncoder, decoder: ConvDecoder, names: Names) -> list[m.Entry]:
    """Those of encoder and decoder without projections."""
    levels, entries = len(encoder.multipliers), []
    for end, module, blocks in (
        ("encoder", encoder, encoder.blocks),
        ("decoder", decoder, decoder.blocks + 1),
    ):
        entries += m.conv(f"{end}/conv_in", f"{end}.conv_in") + m.conv(f"{end}/conv_out", f"{end}.conv_out")
        entries += m.norm(f"{end}/norm_out", f"{end}.{names.norm_out}")
        lowest = module.width * module.multipliers[-1]
        first, attention, second = (f"{end}.{name}" for name in names.middle)
        entries += _block(f"{end}/middle/block0", first, names, False)
        if module.middle_attention:
            entries += _attention(f"{end}/middle/attention", attention, lowest, names)
        entries += _block(f"{end}/middle/block1", second, names, False)
        for level in range(levels):
            if end == "encoder":
                source = f"{end}.{names.down}.{level}"
                before = module.multipliers[max(level - 1, 0)] if level else 1
            else:
                source = f"{end}.{names.up}.{levels - 1 - level if names.reversed_up else level}"
                before = module.multipliers[min(level + 1, levels - 1)]
            ours = f"{end}/level{level}"
            for b in range(blocks):
                widens = b == 0 and before != module.multipliers[level]
                entries += _block(f"{ours}_block{b}", f"{source}.{names.block}.{b}", names, widens)
                if level in module.attention:
                    width = module.width * module.multipliers[level]
                    entries += _attention(f"{ours}_attention{b}", f"{source}.attn.{b}", width, names)
            if end == "encoder" and level < levels - 1:
                entries += m.conv(f"{ours}_down", f"{source}.{names.down_conv}")
            if end == "decoder" and level > 0:
                entries += m.conv(f"{ours}_up", f"{source}.{names.up_conv}")
            if end == "decoder" and decoder.adaptive:
                for name, theirs in (("scale", "gamma"), ("offset", "beta")):
                    norm = f"{end}.adaptive.{levels - 1 - level}.{theirs}"
                    entries += m.dense(f"{ours}_norm/{name}", norm)
    return entries


def _block(target: str, source: str, names: Names, widens: bool) -> list[m.Entry]:
    entries = []
    for i in (1, 2):
        entries += m.norm(f"{target}/norm{i}", f"{source}.norm{i}") + m.conv(
            f"{target}/conv{i}", f"{source}.conv{i}"
        )
    return entries + (m.pointwise(f"{target}/shortcut", f"{source}.{names.shortcut}") if widens else [])


def _attention(target: str, source: str, channels: int, names: Names) -> list[m.Entry]:
    layer, form = (m.dense, m.DENSE) if names.linear else (m.pointwise, m.POINTWISE)
    norm, *parts, out = (f"{source}.{name}" for name in names.attention)
    entries = m.norm(f"{target}/norm", norm) + layer(f"{target}/out", out)
    if names.fused:
        return entries + layer(f"{target}/qkv", parts[0])
    sizes = [channels] * 3
    entries += m.joined(f"{target}/qkv/kernel", [f"{n}.weight" for n in parts], sizes, form)
    return entries + m.joined(f"{target}/qkv/bias", [f"{n}.bias" for n in parts], sizes)
