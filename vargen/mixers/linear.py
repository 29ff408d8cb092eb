"""The linear transformer's attention: a kernel feature map in place of the softmax (arXiv 2006.16236)."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from vargen.layout import Layout
from vargen.limits import EPS
from vargen.mixers.recurrent import Recurrent, needs_whole_steps, sum_visible


class LinearAttention(Recurrent):
    """o_i = phi(q_i) S_i / phi(q_i) z_i, phi(x) = elu(x) + 1 (Transformers are RNNs, section 3).

    S_i sums phi(k_j) v_j^T and z_i phi(k_j) over all rows of the own and earlier steps: causal where every step
    has one row, bidirectional where everyone sees everyone.

    Attributes:
      bias: whether the projections in have biases.
      out_bias: whether the projection out has one.
      eps: added to the normaliser.
    """

    bias: bool = False
    out_bias: bool = True
    eps: Annotated[float, EPS] = 1e-6

    def check(self, layout) -> None:
        """Raises ValueError for a feed that hides slots per example."""
        needs_whole_steps("linear", layout)

    def init_cache(self, batch: int, length: int):
        """S with z as its last column: float32 [B, H, D/H, D/H + 1]."""
        dim = self.width // self.heads
        return {"state": jnp.zeros((batch, self.heads, dim, dim + 1), jnp.float32)}

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """[B, N, D] -> [B, N, D] and the cache after these rows (None in the parallel form)."""
        q, k, v = (self.split(self.project(n, x, self.width, self.bias)) for n in ("query", "key", "value"))
        # The normaliser is one more value channel, of ones.
        v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        y, state = sum_visible(nn.elu(q) + 1, nn.elu(k) + 1, v, layout, cache and cache["state"])
        y = y.astype(jnp.float32)
        y = y[..., :-1] / (y[..., -1:] + self.eps)
        return self.out(y, self.out_bias), cache and {"state": state}
