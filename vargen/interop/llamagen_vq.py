"""LlamaGen's tokenizers (FoundationVision/LlamaGen, vq_ds16_c2i.pt): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from vargen.interop import autoencoder
from vargen.interop import mapping as m
from vargen.tokenizers.vq import VQ

# The last codes seen in training: a statistic, no parameter.
IGNORED = ("quantize.codebook_used",)


def table(tokenizer: VQ) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes."""
    entries = autoencoder.table(tokenizer, autoencoder.LLAMAGEN)
    return entries + m.array("quantizer/codebook", "quantize.embedding.weight")


def from_torch(arrays: Mapping[str, np.ndarray], tokenizer: VQ) -> dict:
    """Parameters of `tokenizer` from the authors' arrays.

    Raises:
      UserError: arrays are missing, left over or of the wrong shape.
    """
    like = jax.eval_shape(tokenizer.init, jax.random.key(0))
    return m.apply(table(tokenizer), arrays, like, ignore=IGNORED, what="LlamaGen tokenizer")
