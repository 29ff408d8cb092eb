"""MAR's autoencoder (LTH14/mar, kl16.ckpt): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.interop import autoencoder, shapes
from vargen.interop import mapping as m
from vargen.tokenizers.kl import KL

WHAT = "MAR tokenizer"
# A checkpoint of latent diffusion's trainer also holds its losses' networks.
IGNORED = ("loss.*",)
WRAPPED = ("model",)  # in the authors' PyTorch files
SCALE = 0.2325  # in the authors' training script, not in their files


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    channels = shapes.shape(arrays, "post_quant_conv.weight", WHAT)[1]
    encoder = autoencoder.encoder_part(arrays, autoencoder.DIFFUSION, WHAT)
    return config_part("kl", encoder=encoder, channels=channels, scale=SCALE)


def table(tokenizer: KL) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes."""
    scale = m.constant("quantizer/scale", lambda: np.full(tokenizer.channels, tokenizer.scale, np.float32))
    return autoencoder.table(tokenizer, autoencoder.DIFFUSION) + scale
