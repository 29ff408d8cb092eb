"""MaskGIT's VQGAN as its authors publish it (google-research/maskgit, tokenizer_imagenet256_checkpoint): its names in
Flax beside ours. `maskgit_vqgan` has those of the file that RAR carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import maskgit_vqgan, shapes
from vargen.tokenizers.autoencoder import Autoencoder

WHAT = "MaskGIT's tokenizer"
IGNORED = ()
WRAPPED = ()
POINTWISE = m.Form(lambda w: w[0, 0], lambda w: w[None, None])  # [1, 1, I, O], [I, O]


def part(arrays: Mapping[str, Any], levels: tuple | None = None) -> ConfigDict:
    """The tokenizer that the arrays are of, see `maskgit_vqgan.part`.

    Raises:
      UserError: an array that tells a size is missing, or blocks that levels don't share evenly.
    """
    width = shapes.shape(arrays, "encoder/Conv_0/kernel", WHAT)[3]
    count = shapes.count(arrays, "decoder/Conv_{}/kernel", WHAT) - 1
    block = "encoder/ResBlock_{}/Conv_0/kernel"
    total = shapes.count(arrays, block, WHAT)
    if count < 1 or total % (count + 1):
        raise UserError(
            f"{WHAT}: expected as many blocks at each of {count} levels and behind, found {total}"
        )
    blocks = total // (count + 1)
    multipliers = tuple(
        shapes.shape(arrays, block.format(i * blocks), WHAT)[3] // width for i in range(count)
    )
    vocab, channels = shapes.pair(arrays, "quantizer/codebook", WHAT)
    return maskgit_vqgan.of_sizes(width, multipliers, blocks, vocab, channels)


def table(tokenizer: Autoencoder) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    encoder = maskgit_vqgan.checked(tokenizer)
    blocks, levels = encoder.blocks, list(range(len(encoder.multipliers)))
    entries = m.array("quantizer/codebook", "quantizer/codebook")
    for end, before, order in maskgit_vqgan.ends(encoder.multipliers):
        entries += _conv(f"{end}/conv_in", f"{end}/Conv_0", bias=end == "decoder")
        ups = len(levels) - 1 if end == "decoder" else 0
        entries += _norm(f"{end}/norm_out", f"{end}/GroupNorm_0")
        entries += _conv(f"{end}/conv_out", f"{end}/Conv_{1 + ups}")
        for i in range(ups):
            entries += _conv(f"decoder/level{levels[-1 - i]}_up", f"decoder/Conv_{1 + i}")
        # In the sequence in which they compute: the middle comes last of the encoder, first of the decoder.
        names = [
            (f"{end}/level{i}_block{b}", b == 0 and before[i] != encoder.multipliers[i])
            for i in order
            for b in range(blocks)
        ]
        middle = [(f"{end}/middle/block{b}", False) for b in range(blocks)]
        for i, (name, changes) in enumerate(names + middle if end == "encoder" else middle + names):
            entries += _block(name, f"{end}/ResBlock_{i}", changes)
    return entries


def _block(target: str, source: str, changes: bool) -> list[m.Entry]:
    entries = []
    for i in (0, 1):
        entries += _norm(f"{target}/norm{i + 1}", f"{source}/GroupNorm_{i}")
        entries += _conv(f"{target}/conv{i + 1}", f"{source}/Conv_{i}", bias=False)
    return entries + (
        m.array(f"{target}/shortcut/kernel", f"{source}/Conv_2/kernel", POINTWISE) if changes else []
    )


def _conv(target: str, source: str, bias: bool = True) -> list[m.Entry]:
    entries = m.array(f"{target}/kernel", f"{source}/kernel")
    return entries + (m.array(f"{target}/bias", f"{source}/bias") if bias else [])


def _norm(target: str, source: str) -> list[m.Entry]:
    return m.array(f"{target}/scale", f"{source}/scale") + m.array(f"{target}/bias", f"{source}/bias")
