"""MAR's autoencoder (LTH14/mar, kl16.ckpt): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from vargen.interop import autoencoder
from vargen.interop import mapping as m
from vargen.tokenizers.kl import KL

# A checkpoint of latent diffusion's trainer also holds its losses' networks.
IGNORED = ("loss.*",)


def table(tokenizer: KL) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes."""
    # The authors keep the scale of the latents in their training script.
    scale = m.Entry("quantizer/scale", (), lambda: np.full((tokenizer.channels,), tokenizer.scale))
    return [*autoencoder.table(tokenizer, autoencoder.DIFFUSION), scale]


def from_torch(arrays: Mapping[str, np.ndarray], tokenizer: KL) -> dict:
    """Parameters of `tokenizer` from the authors' arrays.

    Raises:
      UserError: arrays are missing, left over or of the wrong shape.
    """
    like = jax.eval_shape(tokenizer.init, jax.random.key(0))
    return m.apply(table(tokenizer), arrays, like, ignore=IGNORED, what="MAR tokenizer")
