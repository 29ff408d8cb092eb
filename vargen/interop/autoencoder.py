"""The convolutional autoencoder under its authors' names; the published ones differ in names alone."""

from __future__ import annotations

import dataclasses

from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.tokenizers.base import Tokenizer
from vargen.tokenizers.conv import ConvEncoder


@dataclasses.dataclass(frozen=True)
class Names:
    """How a family calls the pieces.

    Attributes:
      down, up: list of levels in the encoder and in the decoder.
      reversed_up: the decoder's list starts at the lowest resolution.
      block: list of residual blocks in a level.
      middle: residual block, attention, residual block.
      fused: attention keeps query, key and value in one array.
    """

    down: str
    up: str
    reversed_up: bool
    block: str
    middle: tuple[str, str, str]
    fused: bool


DIFFUSION = Names("down", "up", False, "block", ("mid.block_1", "mid.attn_1", "mid.block_2"), False)
VAR = dataclasses.replace(DIFFUSION, fused=True)
LLAMAGEN = Names("conv_blocks", "conv_blocks", True, "res", ("mid.0", "mid.1", "mid.2"), False)


def table(tokenizer: Tokenizer, names: Names) -> list[m.Entry]:
    """Entries of encoder and decoder, with the projections that the authors keep beside them.

    Raises:
      UserError: the tokenizer's encoder is not "conv".
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    if not isinstance(encoder, ConvEncoder):
        raise UserError(f"tokenizer: expected the encoder conv, found {type(encoder).__name__}")
    levels = len(encoder.multipliers)
    entries = m.conv("encoder/projection", "quant_conv") + m.conv("decoder/projection", "post_quant_conv")
    for end, module, blocks in (
        ("encoder", encoder, encoder.blocks),
        ("decoder", decoder, decoder.blocks + 1),
    ):
        entries += m.conv(f"{end}/conv_in", f"{end}.conv_in") + m.conv(f"{end}/conv_out", f"{end}.conv_out")
        entries += m.norm(f"{end}/norm_out", f"{end}.norm_out")
        first, attention, second = (f"{end}.{name}" for name in names.middle)
        entries += _block(f"{end}/middle/block0", first, False)
        entries += _attention(f"{end}/middle/attention", attention, names.fused)
        entries += _block(f"{end}/middle/block1", second, False)
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
                entries += _block(f"{ours}_block{b}", f"{source}.{names.block}.{b}", widens)
                if module.attention and level == levels - 1:
                    entries += _attention(f"{ours}_attention{b}", f"{source}.attn.{b}", names.fused)
            if end == "encoder" and level < levels - 1:
                entries += m.conv(f"{ours}_down", f"{source}.downsample.conv")
            if end == "decoder" and level > 0:
                entries += m.conv(f"{ours}_up", f"{source}.upsample.conv")
    return entries


def _block(target: str, source: str, widens: bool) -> list[m.Entry]:
    entries = []
    for i in (1, 2):
        entries += m.norm(f"{target}/norm{i}", f"{source}.norm{i}") + m.conv(
            f"{target}/conv{i}", f"{source}.conv{i}"
        )
    return entries + (m.dense(f"{target}/shortcut", f"{source}.nin_shortcut") if widens else [])


def _attention(target: str, source: str, fused: bool) -> list[m.Entry]:
    entries = m.norm(f"{target}/norm", f"{source}.norm") + m.dense(f"{target}/out", f"{source}.proj_out")
    if fused:
        return entries + m.dense(f"{target}/qkv", f"{source}.qkv")
    return entries + m.fused_dense(f"{target}/qkv", [f"{source}.{name}" for name in "qkv"])
