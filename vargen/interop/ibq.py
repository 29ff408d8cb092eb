"""IBQ's tokenizers (TencentARC/IBQ-Tokenizer-16384, imagenet256_16384.ckpt ...): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.interop import autoencoder, shapes
from vargen.interop import mapping as m
from vargen.tokenizers.ibq import IBQ

WHAT = "IBQ tokenizer"
IGNORED = ("loss.*",)  # the losses' networks
WRAPPED = ("state_dict",)  # in the authors' PyTorch files


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    vocab, channels = shapes.pair(arrays, "quantize.embedding.weight", WHAT)
    encoder = autoencoder.encoder_part(arrays, autoencoder.DIFFUSION, WHAT)
    return config_part("ibq", encoder=encoder, vocab=vocab, channels=channels)


def table(tokenizer: IBQ) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes."""
    entries = autoencoder.table(tokenizer, autoencoder.DIFFUSION)
    return entries + m.array("quantizer/codebook", "quantize.embedding.weight")
