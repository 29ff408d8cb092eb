"""Class labels, with a null class for classifier-free guidance."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import Embed, initializer


class LabelEmbedding(nn.Module):
    """A vector per class, and one for "no class" behind them (index `num_classes`).

    Attributes:
      num_classes: number of classes.
      width: D.
      init_std: see `initializer`.
      dropout: probability with which `drop` takes the label away (arXiv 2207.12598).
    """

    num_classes: int
    width: int
    init_std: float
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @property
    def null(self) -> int:
        """The index that stands for no condition."""
        return self.num_classes

    def drop(self, labels, key):
        """int32 [B]: labels [B], each replaced by the null class with probability `dropout`."""
        gone = jax.random.bernoulli(key, self.dropout, labels.shape)
        return jnp.where(gone, self.null, labels)

    @nn.compact
    def __call__(self, labels):
        """int32 [B] -> [B, D]."""
        init = initializer(self.init_std or 0.02, self.width)
        return Embed(self.num_classes + 1, self.width, init, dtype=self.dtype, name="classes")(labels)
