"""Cross-attention: rows look at the rows of a condition (arXiv 1706.03762)."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen.layers import Dense
from vargen.layout import HIDDEN
from vargen.mixers.primitives import step_attention


class CrossAttention(nn.Module):
    """Attention of rows over a memory that is the same for all of them, and has no places.

    Attributes:
      width: D.
      heads: H.
      kernel_init, out_init: kernel initialisers.
      dtype: compute dtype.
    """

    width: int
    heads: int
    kernel_init: Any
    out_init: Any
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, memory, hidden=None):
        """[B, N, D] over the memory [B, P, D], of which rows `hidden`, bool [B, P], aren't seen -> [B, N, D]."""
        dim = self.width // self.heads

        def project(name, rows):
            names = ("embed", "heads")
            y = Dense(self.width, names, self.kernel_init, False, self.dtype, name=name)(rows)
            return y.reshape(*rows.shape[:-1], self.heads, dim)

        q, k, v = project("query", x), project("key", memory), project("value", memory)
        times = np.zeros(memory.shape[1], np.int32)
        if hidden is not None:
            times = jnp.where(hidden, HIDDEN, 0).astype(jnp.int32)
        rows = np.zeros(x.shape[1], np.int32)
        known = dict(scale=1 / math.sqrt(dim), steps_are_sorted=False)
        y = step_attention(q, k, v, rows, times, **known).reshape(x.shape)
        names = ("heads", "embed")
        return Dense(self.width, names, self.out_init, False, self.dtype, name="out")(y)
