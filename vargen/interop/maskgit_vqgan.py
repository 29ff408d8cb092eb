"""MaskGIT's VQGAN as RAR carries it (bytedance/1d-tokenizer, maskgit-vqgan-imagenet-f16-256.bin): the authors'
names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen import config
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.pooled import PooledEncoder
from vargen.tokenizers.vq import VQ

WHAT = "MaskGIT VQGAN"
IGNORED = ()
WRAPPED = ()
USUAL: dict[str, Any] = dict(
    width=128, multipliers=(1, 1, 2, 2, 4), blocks=2
)  # defaults, left out of the part
GROUPS = 32  # in the authors' program, whatever the width


def part(arrays: Mapping[str, Any], levels: tuple | None = None) -> ConfigDict:
    """The tokenizer that the arrays are of: the part "vq" with the encoder "pooled".

    The losses are those that it was trained with (google-research/maskgit, configs/vqgan_config.py), which the code
    that carries it weighs otherwise.

    Args:
      arrays: the authors', by name; only their shapes are looked at.
      levels: not used; one level always.

    Raises:
      UserError: an array that tells a size is missing.
    """
    vocab, channels = shapes.pair(arrays, "quantize.embedding.weight", WHAT)
    return of_sizes(**sizes(arrays), vocab=vocab, channels=channels)


def sizes(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the encoder: width, multipliers, blocks.

    Raises:
      UserError: an array that tells a size is missing.
    """
    width = shapes.shape(arrays, "encoder.conv_in.weight", WHAT)[0]
    first = "encoder.down.{}.block.0.conv1.weight"
    multipliers = tuple(
        shapes.shape(arrays, first.format(i))[0] // width for i in range(shapes.count(arrays, first, WHAT))
    )
    blocks = shapes.count(arrays, "encoder.down.0.block.{}.conv1.weight", WHAT)
    return dict(width=width, multipliers=multipliers, blocks=blocks)


def of_sizes(width: int, multipliers: tuple[int, ...], blocks: int, vocab: int, channels: int) -> ConfigDict:
    """The part of these sizes."""
    found = dict(width=width, multipliers=multipliers, blocks=blocks)
    return config.part(
        "vq",
        vocab=vocab,
        channels=channels,
        normalise=False,
        entropy_weight=0.1,
        revive_every=0,
        encoder=config.part("pooled", **{k: v for k, v in found.items() if v != USUAL[k]}),
    )


def table(tokenizer: Autoencoder) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    encoder = checked(tokenizer)
    entries = m.array("quantizer/codebook", "quantize.embedding.weight")
    return entries + layers(encoder.multipliers, encoder.blocks)


def layers(multipliers: tuple[int, ...], blocks: int) -> list[m.Entry]:
    """Those of both ends, of so many blocks a level."""
    levels = range(len(multipliers))
    entries = m.conv("encoder/conv_in", "encoder.conv_in", bias=False)
    entries += m.conv("decoder/conv_in", "decoder.conv_in")
    for end, before, _ in ends(multipliers):
        name = "down" if end == "encoder" else "up"
        entries += m.norm(f"{end}/norm_out", f"{end}.norm_out") + m.conv(f"{end}/conv_out", f"{end}.conv_out")
        for b in range(blocks):
            entries += block(f"{end}/middle/block{b}", f"{end}.mid.{b}", False)
            for i in levels:
                changes = b == 0 and before[i] != multipliers[i]
                entries += block(f"{end}/level{i}_block{b}", f"{end}.{name}.{i}.block.{b}", changes)
    for i in levels[1:]:
        entries += m.conv(f"decoder/level{i}_up", f"decoder.up.{i}.upsample_conv")
    return entries


def checked(tokenizer: Autoencoder) -> PooledEncoder:
    """The encoder of a tokenizer that the authors' program computes.

    Raises:
      UserError: another tokenizer.
    """
    encoder = tokenizer.codec.encoder
    if not isinstance(encoder, PooledEncoder) or encoder.groups != GROUPS:
        found = f"groups={encoder.groups}" if isinstance(encoder, PooledEncoder) else type(encoder).__name__
        raise UserError(f"{WHAT}: expected the encoder pooled with groups={GROUPS}, found {found}")
    if not isinstance(tokenizer, VQ) or tokenizer.normalise:
        found = "normalise=True" if isinstance(tokenizer, VQ) else type(tokenizer).__name__
        raise UserError(f"{WHAT}: expected the tokenizer vq with normalise=False, found {found}")
    return encoder


def ends(multipliers: tuple[int, ...]) -> tuple[tuple[str, tuple[int, ...], range], ...]:
    """The encoder and the decoder: the name, by level what its first block takes in multiples of the width, and the
    sequence in which it goes through the levels."""
    levels = range(len(multipliers))
    # The level above in the encoder, the one below in the decoder.
    return (
        ("encoder", (1, *multipliers[:-1]), levels),
        ("decoder", (*multipliers[1:], multipliers[-1]), levels[::-1]),
    )


def block(target: str, source: str, changes: bool) -> list[m.Entry]:
    """Those of a residual block without biases; `changes`: whether it has a shortcut."""
    entries = []
    for i in (1, 2):
        entries += m.norm(f"{target}/norm{i}", f"{source}.norm{i}")
        entries += m.conv(f"{target}/conv{i}", f"{source}.conv{i}", bias=False)
    if changes:
        entries += m.pointwise(f"{target}/shortcut", f"{source}.nin_shortcut", bias=False)
    return entries
