"""Open-MAGVIT2's tokenizers (TencentARC/Open-MAGVIT2-Tokenizer-128-resolution, imagenet_128_L.ckpt ...): the authors'
names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes
from vargen.interop.maskgit_vqgan import block, ends
from vargen.tokenizers.adaptive import AdaptiveEncoder
from vargen.tokenizers.implicit import Signs

WHAT = "Open-MAGVIT2 tokenizer"
IGNORED = ("loss.*",)  # the losses' networks
WRAPPED = ("state_dict",)  # in the authors' PyTorch files
USUAL: dict[str, Any] = dict(width=128, multipliers=(1, 1, 2, 2, 4), blocks=4)
GROUPS = 32  # in the authors' program, whatever the width


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Raises:
      UserError: an array that tells a size is missing.
    """
    width = shapes.shape(arrays, "encoder.conv_in.weight", WHAT)[0]
    first = "encoder.down.{}.block.0.conv1.weight"
    multipliers = tuple(
        shapes.shape(arrays, first.format(i))[0] // width for i in range(shapes.count(arrays, first, WHAT))
    )
    blocks = shapes.count(arrays, "encoder.down.0.block.{}.conv1.weight", WHAT)
    found = dict(width=width, multipliers=multipliers, blocks=blocks)
    encoder = config_part("adaptive", **{k: v for k, v in found.items() if v != USUAL[k]})
    channels = shapes.shape(arrays, "encoder.conv_out.weight", WHAT)[0]
    # A bit's law in their entropy loss is softmax(2 x code / 0.01).
    return config_part("lfq", encoder=encoder, channels=channels, diversity=0.8, sharpness=100.0)


def table(tokenizer: Signs) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    encoder = tokenizer.codec.encoder
    if not isinstance(encoder, AdaptiveEncoder) or encoder.groups != GROUPS:
        found = f"groups={encoder.groups}" if isinstance(encoder, AdaptiveEncoder) else type(encoder).__name__
        raise UserError(f"{WHAT}: expected the encoder adaptive with groups={GROUPS}, found {found}")
    entries = m.conv("encoder/conv_in", "encoder.conv_in", bias=False)
    entries += m.conv("decoder/conv_in", "decoder.conv_in")
    for end, before, _ in ends(encoder.multipliers):
        name = "down" if end == "encoder" else "up"
        entries += m.norm(f"{end}/norm_out", f"{end}.norm_out") + m.conv(f"{end}/conv_out", f"{end}.conv_out")
        for b in range(encoder.blocks):
            entries += block(f"{end}/middle/block{b}", f"{end}.mid_block.{b}", False)
            for i, multiplier in enumerate(encoder.multipliers):
                changes = b == 0 and before[i] != multiplier
                entries += block(f"{end}/level{i}_block{b}", f"{end}.{name}.{i}.block.{b}", changes)
    for i in range(len(encoder.multipliers)):
        for ours, theirs in (("scale", "gamma"), ("offset", "beta")):
            entries += m.dense(f"decoder/level{i}_norm/{ours}", f"decoder.adaptive.{i}.{theirs}")
        if i:
            entries += m.conv(f"encoder/level{i - 1}_down", f"encoder.down.{i - 1}.downsample")
            entries += m.conv(f"decoder/level{i}_up", f"decoder.up.{i}.upsample.conv1")
    return entries
