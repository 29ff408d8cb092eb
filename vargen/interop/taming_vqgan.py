"""VQGAN (CompVis/taming-transformers, vqgan_imagenet_f16_16384/ckpts/last.ckpt ...): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.interop import autoencoder, shapes
from vargen.interop import mapping as m
from vargen.tokenizers.vq import VQ

WHAT = "VQGAN"
IGNORED = ("loss.*",)  # the losses' networks
WRAPPED = ("state_dict",)  # in the authors' PyTorch files


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Its losses are those of the authors' program as it is ("legacy"): beta weighs the codebook's term, not the
    commitment.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    vocab, channels = shapes.pair(arrays, "quantize.embedding.weight", WHAT)
    encoder = autoencoder.encoder_part(arrays, autoencoder.DIFFUSION, WHAT)
    return config_part(
        "vq",
        encoder=encoder,
        vocab=vocab,
        channels=channels,
        normalise=False,
        beta=1.0,
        codebook_weight=0.25,
        revive_every=0,
    )


def table(tokenizer: VQ) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes."""
    entries = autoencoder.table(tokenizer, autoencoder.DIFFUSION)
    return entries + m.array("quantizer/codebook", "quantize.embedding.weight")
