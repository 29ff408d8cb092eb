"""Gated linear attention (arXiv 2312.06635)."""

from __future__ import annotations

import math
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from vargen.layers import Norm, logical
from vargen.layout import Layout
from vargen.limits import SIZE, Above, Between
from vargen.mixers.primitives import linear_attention
from vargen.mixers.recurrent import Recurrent


class GLA(Recurrent):
    """S_t = diag(a_t) S_(t-1) + k_t v_t^T, o_t = q_t S_t / sqrt(K), causal along the rows (GLA, eq. 3).

    The gate a_t = sigmoid(x_t W_1 W_2 + b)^(1/temperature) is of low rank (section 4.4); each head's result is
    normalised (root mean square; the scale is shared by the heads, as in the authors' code) and gated by
    silu(x_t W_g).

    Attributes:
      expand_k, expand_v: sizes of all keys and all values over D.
      gate_rank: columns of W_1.
      temperature: the larger, the slower the decay.
    """

    expand_k: Annotated[float, Between(0, 64, above=True)] = 0.5
    expand_v: Annotated[float, Between(0, 64, above=True)] = 1.0
    gate_rank: Annotated[int, SIZE] = 16
    temperature: Annotated[float, Above(0)] = 16.0

    def init_cache(self, batch: int, length: int):
        """The state: float32 [B, H, K, V]."""
        sizes = (int(self.width * e) // self.heads for e in (self.expand_k, self.expand_v))
        return {"state": jnp.zeros((batch, self.heads, *sizes), jnp.float32)}

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """[B, N, D] -> [B, N, D] and the cache after these rows (None in the parallel form)."""
        keys, values = int(self.width * self.expand_k), int(self.width * self.expand_v)
        q, k = (self.split(self.project(n, x, keys)) for n in ("query", "key"))
        v = self.split(self.project("value", x, values))
        decay = self.project("decay_down", x, self.gate_rank, names=("embed", None))
        decay = self.project("decay_up", decay, keys, bias=True, names=(None, "heads"))
        log_decay = nn.log_sigmoid(self.split(decay).astype(jnp.float32)) / self.temperature
        y, state = linear_attention(
            q,
            k,
            v,
            log_decay,
            scale=1 / math.sqrt(q.shape[-1]),
            initial=cache and cache["state"],
            return_state=True,
        )
        y = Norm("rms", affine=False, eps=1e-5, name="norm")(y.astype(jnp.float32))
        y = y * self.param("scale", logical(nn.initializers.ones, None), (v.shape[-1],))
        y = y * nn.silu(self.split(self.project("gate", x, values)).astype(jnp.float32))
        return self.out(y), cache and {"state": state}
