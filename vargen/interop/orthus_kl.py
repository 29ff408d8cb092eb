"""Chameleon's VQGAN as Orthus takes it (SJTU-Deng-Lab/Orthus-7B-instruct, the part model.vqmodel): its latents before
they are quantised. The authors' names beside ours.

They are the means of a KL autoencoder whose deviations are as good as none. The authors' program scales a grey level by
0.0078, here it is 1/127.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import autoencoder, shapes
from vargen.interop import mapping as m
from vargen.tokenizers.kl import KL

WHAT = "Orthus tokenizer"
PREFIX = "model.vqmodel."
# Other parts of the same files, and codes that nothing is quantised to.
IGNORED = (
    *(
        "model.layers.*",
        "model.embed_tokens.*",
        "model.norm.*",
        "model.codebook_in.*",
        "lm_head.*",
        "mlp_head.*",
    ),
    f"{PREFIX}quantize.*",
)
WRAPPED = ()
SCALE = 0.1  # in the authors' program, not in their files
SMALLEST = -30.0  # logarithm of a variance, below which `KL` doesn't go


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    own = m.Inside(PREFIX, arrays)
    channels = shapes.shape(own, "post_quant_conv.weight", WHAT)[1]
    encoder = autoencoder.encoder_part(own, autoencoder.DIFFUSION, WHAT)
    encoder.hidden = shapes.shape(own, "quant_conv.weight", WHAT)[1]
    return config_part("kl", encoder=encoder, channels=channels, scale=SCALE)


def table(tokenizer: KL) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: another tokenizer than `kl`.
    """
    if not isinstance(tokenizer, KL):
        raise UserError(f"{WHAT}: expected the tokenizer kl, found {type(tokenizer).__name__}")
    entries = [_halved(e) for e in autoencoder.table(tokenizer, autoencoder.DIFFUSION)]
    scale = m.constant("quantizer/scale", lambda: np.full(tokenizer.channels, tokenizer.scale, np.float32))
    return m.inside(PREFIX, entries) + scale


def _halved(entry: m.Entry) -> m.Entry:
    """Entries of the encoder's last two layers, whose second half, the variances', is there in ours alone."""
    (target,) = entry.targets
    layer, _, leaf = target.rpartition("/")
    if layer not in ("encoder/conv_out", "encoder/projection"):
        return entry
    last = layer == "encoder/projection"

    def read(w: np.ndarray) -> m.Arrays:
        (own,) = entry.read(w)
        rest = np.full_like(own, SMALLEST if last and leaf == "bias" else 0)
        own = np.concatenate([own, rest], axis=-1)
        return (np.concatenate([own, np.zeros_like(own)], axis=2) if last and leaf == "kernel" else own,)

    def write(w: np.ndarray) -> m.Arrays:
        half = w[..., : w.shape[-1] // 2]
        return entry.write(half[:, :, : half.shape[2] // 2] if last and leaf == "kernel" else half)

    return m.Entry(entry.targets, entry.sources, read, write)
