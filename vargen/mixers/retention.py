"""Retention: linear attention with a fixed decay per head (RetNet, arXiv 2307.08621; ViR, arXiv 2310.19731)."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen.layers import Norm
from vargen.layout import Layout
from vargen.mixers.primitives import linear_attention
from vargen.mixers.recurrent import Recurrent
from vargen.mixers.rope import rotate


class Retention(Recurrent):
    """S_n = gamma S_(n-1) + k_n^T v_n, o_n = q_n S_n / sqrt(K), causal along the rows (RetNet, eq. 6).

    gamma_h = 1 - 2^(-5 - h) (eq. 8). Each head's result is normalised by itself (a group norm without
    parameters), then gated.

    Attributes:
      gate: whether silu(x W_g) multiplies the result (RetNet, eq. 8).
      rotary: whether queries and keys are rotated by their places in the sequence (RetNet); ViR leaves
        positions to its embeddings.
    """

    gate: bool = True
    rotary: bool = False

    def init_cache(self, batch: int, length: int):
        """The state: float32 [B, H, D/H, D/H]."""
        dim = self.width // self.heads
        return {"state": jnp.zeros((batch, self.heads, dim, dim), jnp.float32)}

    def check(self, layout) -> None:
        """Raises ValueError as of `Recurrent`, and for heads that don't divide into rotary pairs."""
        super().check(layout)
        if self.rotary and self.width % (2 * self.heads):
            raise ValueError(
                f"config field mixer.heads: expected heads of a multiple of 2 channels out of {self.width} for rotary, "
                f"found {self.heads}"
            )

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """[B, N, D] -> [B, N, D] and the cache after these rows (None in the parallel form)."""
        q, k, v = (self.split(self.project(n, x, self.width)) for n in ("query", "key", "value"))
        if self.rotary:
            q, k = turn(q, layout.sequence), turn(k, layout.sequence)
        y, state = linear_attention(
            q,
            k,
            v,
            log_decays(self.heads),
            scale=1 / math.sqrt(q.shape[-1]),
            initial=cache and cache["state"],
            return_state=True,
        )
        y = Norm("layer", affine=False, name="norm")(y.astype(jnp.float32))
        if self.gate:
            y = y * nn.silu(self.split(self.project("gate", x, self.width)).astype(jnp.float32))
        return self.out(y), cache and {"state": state}


def log_decays(heads: int):
    """float32 [H]: log(1 - 2^(-5 - h)), RetNet's decays."""
    return jnp.asarray(np.log1p(-np.exp2(-5.0 - np.arange(heads))), jnp.float32)


def turn(x, index):
    """Rotates pairs of channels by index times 10000^(-i / (F/2 - 1)), i from 0 to F/2 - 1 (RetNet's angles).

    Args:
      x: [B, N, H, F], F even.
      index: int [N, 1] or [B, N, 1], at least 0.
    """
    dim = x.shape[-1]
    # The rotary positions end one frequency earlier; a larger base makes them the same.
    return rotate(x, index, base=10000.0 ** (dim / max(dim - 2, 1)))
