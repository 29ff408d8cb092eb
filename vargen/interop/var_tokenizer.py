"""VAR's tokenizer (FoundationVision/VAR, vae_ch160v4096z32.pth): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import autoencoder, shapes
from vargen.interop import mapping as m
from vargen.interop.var import PUBLISHED
from vargen.tokenizers.multiscale import MultiScaleVQ

WHAT = "VAR tokenizer"
IGNORED = ()
WRAPPED = ()
HITS = "quantize.ema_vocab_hit_SV"


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part; `levels` are those of the generator (by default those of 256 pixels).

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    vocab, channels = shapes.pair(arrays, "quantize.embedding.weight", WHAT)
    if levels is None:
        levels = PUBLISHED[10, 680]
        if HITS in arrays and shapes.shape(arrays, HITS, WHAT)[0] != len(levels):
            raise UserError(
                f"{WHAT}: expected {len(levels)} levels, found another number; import its generator with it"
            )
    encoder = autoencoder.encoder_part(arrays, autoencoder.VAR, WHAT)
    # The authors' class differs with the degree of sharing, and with it the names.
    shared = shapes.count(arrays, "quantize.quant_resi.qresi_ls.{}.weight")
    phi = 1 if "quantize.quant_resi.qresi.weight" in arrays else shared
    options: dict[str, Any] = {} if phi == 4 else dict(phi=phi)
    return config_part(
        "multiscale_vq", encoder=encoder, levels=levels, vocab=vocab, channels=channels, **options
    )


def table(tokenizer: MultiScaleVQ) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes."""
    return autoencoder.table(tokenizer, autoencoder.VAR) + quantiser(tokenizer)


def quantiser(tokenizer: MultiScaleVQ) -> list[m.Entry]:
    """Those of the quantiser."""
    entries = m.array("quantizer/codebook", "quantize.embedding.weight")
    levels = len(tokenizer.grid.levels)
    # Counts of hits from training: statistics, no parameter.
    entries += m.buffer(HITS, lambda: np.zeros((levels, tokenizer.vocab), np.float32))
    if tokenizer.phi_ratio:
        place = {0: "quantize.quant_resi.{}", 1: "quantize.quant_resi.qresi"}
        name = place.get(tokenizer.phi, "quantize.quant_resi.qresi_ls.{}")

        def phi(i):
            entries = m.array("quantizer/phi_kernel", name.format(i) + ".weight", m.CONV)
            return entries + m.array("quantizer/phi_bias", name.format(i) + ".bias")

        entries += m.stacked(tokenizer.phi or levels, phi)
    return entries
