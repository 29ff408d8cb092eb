"""LlamaGen's tokenizers (FoundationVision/LlamaGen, vq_ds16_c2i.pt, vq_ds8_c2i.pt): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.interop import autoencoder, shapes
from vargen.interop import mapping as m
from vargen.tokenizers.vq import VQ

WHAT = "LlamaGen tokenizer"
IGNORED = ()
WRAPPED = ("model",)  # in the authors' PyTorch files


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    vocab, channels = shapes.pair(arrays, "quantize.embedding.weight", WHAT)
    encoder = autoencoder.encoder_part(arrays, autoencoder.LLAMAGEN, WHAT)
    return config_part("vq", encoder=encoder, vocab=vocab, channels=channels, revive_every=0)


def table(tokenizer: VQ) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes."""
    entries = autoencoder.table(tokenizer, autoencoder.LLAMAGEN)
    entries += m.array("quantizer/codebook", "quantize.embedding.weight")
    # The last codes seen in training: a statistic, no parameter.
    return entries + m.buffer("quantize.codebook_used", lambda: np.zeros(65536, np.float32))
