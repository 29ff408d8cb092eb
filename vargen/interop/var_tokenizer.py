"""VAR's tokenizer (FoundationVision/VAR, vae_ch160v4096z32.pth): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from vargen.interop import autoencoder
from vargen.interop import mapping as m
from vargen.tokenizers.multiscale import MultiScaleVQ

# Counts of hits from training: statistics, no parameter.
IGNORED = ("quantize.ema_vocab_hit_SV",)


def table(tokenizer: MultiScaleVQ) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes."""
    entries = autoencoder.table(tokenizer, autoencoder.VAR)
    entries += m.array("quantizer/codebook", "quantize.embedding.weight")
    if tokenizer.phi_ratio:
        # The authors' class differs with the degree of sharing, and with it the names.
        place = {0: "quantize.quant_resi.{}", 1: "quantize.quant_resi.qresi"}
        name = place.get(tokenizer.phi, "quantize.quant_resi.qresi_ls.{}")
        count = tokenizer.phi or len(tokenizer.grid.levels)

        def phi(i):
            entries = m.array("quantizer/phi_kernel", name.format(i) + ".weight", m.conv_kernel)
            return entries + m.array("quantizer/phi_bias", name.format(i) + ".bias")

        entries += m.stacked(count, phi)
    return entries


def from_torch(arrays: Mapping[str, np.ndarray], tokenizer: MultiScaleVQ) -> dict:
    """Parameters of `tokenizer` from the authors' arrays.

    Raises:
      UserError: arrays are missing, left over or of the wrong shape.
    """
    like = jax.eval_shape(tokenizer.init, jax.random.key(0))
    return m.apply(table(tokenizer), arrays, like, ignore=IGNORED, what="VAR tokenizer")
