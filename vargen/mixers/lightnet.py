"""LightNet's additive recurrence (arXiv 2405.21022)."""

from __future__ import annotations

import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.layers import Norm
from vargen.layout import Layout
from vargen.limits import SIZE, Above, Between
from vargen.mixers.primitives import linear_attention
from vargen.mixers.recurrent import Recurrent, needs_whole_steps, runs

# The logarithm of an empty sum: finite, so that differences of two stay numbers.
EMPTY = -1e30


class LightNet(Recurrent):
    """o_i = q_i S_i / sqrt(K), S_i = sum_j (exp(k_j) / sum_j' exp(k_j')) v_j^T over the own and earlier steps.

    A softmax over the rows, per key channel: its normaliser grows by addition, so no row's weight depends on its
    distance, and one scan serves any number of dimensions. Carried as log(sum exp(k)) and
    the normalised state. q passes silu; the result is normalised (root mean square) and gated by
    silu(x W_1 W_2).

    Attributes:
      key_size: K per head; 0: D/H.
      gate_rank: columns of W_1.
      lrpe: relative positions on every axis of `layout.coords` (MD-LRPE): q and k become (q cos, q sin) and
        (k cos, k sin) of angles that grow with the coordinate of the axis to which the channel belongs, so that
        q_i k_j is weighted by the cosine of the difference; rows that lie nowhere have angle 0. The paper's
        other encoding, MD-TPE, is added once to the model's input and is no part of a mixer.
      base: of lrpe's frequencies, which fall from 1 to 1 / base^2.
    """

    key_size: Annotated[int, Between(0, 2**20)] = 0
    gate_rank: Annotated[int, SIZE] = 128
    lrpe: bool = False
    base: Annotated[float, Above(1)] = 10000.0

    @property
    def keys(self) -> int:
        return self.key_size or self.width // self.heads

    def check(self, layout) -> None:
        """Raises ValueError for a feed that hides slots per example."""
        needs_whole_steps("lightnet", layout)

    def init_cache(self, batch: int, length: int):
        """float32: the state [B, H, K (2K with lrpe), V], and the logarithm [B, H, K] of its normaliser."""
        state = (batch, self.heads, self.keys * (1 + self.lrpe), self.width // self.heads)
        log_sum = jnp.full((batch, self.heads, self.keys), EMPTY, jnp.float32)
        return {"state": jnp.zeros(state, jnp.float32), "log_sum": log_sum}

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """[B, N, D] -> [B, N, D] and the cache after these rows (None in the parallel form)."""
        q, k = (self.split(self.project(n, x, self.heads * self.keys)) for n in ("query", "key"))
        v = self.split(self.project("value", x, self.width))
        y, new = self._scan(nn.silu(q), k.astype(jnp.float32), v, layout, cache)
        y = Norm("rms", eps=1e-5, name="norm")(y.reshape(x.shape).astype(jnp.float32))
        gate = self.project("gate_down", x, self.gate_rank, names=("embed", None))
        gate = self.project("gate_up", gate, self.width, names=(None, "heads"))
        return self.out(y * nn.silu(gate.astype(jnp.float32))), cache and new

    def _scan(self, q, k, v, layout, cache):
        """The recurrence: [B, N, H, V] and the cache after it."""
        cache_or_empty = cache or self.init_cache(len(q), 0)
        state, log_sum = cache_or_empty["state"], cache_or_empty["log_sum"]
        waves = self._waves(layout.coords) if self.lrpe else None
        outs = []
        for low, high, causal in runs(layout, cache is not None):
            here, decay = k[:, low:high], None
            if causal:
                sums = jnp.logaddexp(log_sum[:, None], jax.lax.cumlogsumexp(here, axis=1))
                before = jnp.concatenate([log_sum[:, None], sums[:, :-1]], axis=1)
                # Before the first row the state is zero, and whatever it is multiplied by; rounding alone makes a
                # sum fall.
                decay = jnp.where(before > EMPTY / 2, jnp.minimum(before - sums, 0.0), 0.0)
                log_sum = sums[:, -1]
            else:
                sums = jnp.logaddexp(log_sum, jax.nn.logsumexp(here, axis=1))[:, None]
                state = self._twice(jnp.exp(log_sum - sums[:, 0]))[..., None] * state
                log_sum = sums[:, 0]
            key, query = jnp.exp(here - sums).astype(q.dtype), q[:, low:high]
            if waves is not None:
                cos, sin = (w[..., low:high, :, :].astype(q.dtype) for w in waves)
                key, query = (jnp.concatenate([y * cos, y * sin], axis=-1) for y in (key, query))
            o, state = linear_attention(
                query,
                key,
                v[:, low:high],
                None if decay is None else self._twice(decay),
                causal=causal,
                scale=1 / math.sqrt(self.keys),
                initial=state,
                return_state=True,
            )
            outs.append(o)
        return jnp.concatenate(outs, axis=1), {"state": state, "log_sum": log_sum}

    def _twice(self, y):
        return jnp.concatenate([y, y], axis=-1) if self.lrpe else y

    def _waves(self, coords):
        """Cosines and sines [.., N, H, K] of lrpe: theta_(h, i) = base^(-2 (h K + i) / (H K)), i within an axis."""
        axes, coords = coords.shape[-1], jnp.maximum(jnp.asarray(coords), 0).astype(jnp.float32)
        axis, within = np.divmod(np.arange(self.keys), -(-self.keys // axes))
        order = np.arange(self.heads)[:, None] * self.keys + within
        theta = np.asarray(self.base ** (-2.0 * order / (self.heads * self.keys)), np.float32)
        angles = coords[..., axis][..., None, :] * theta
        return jnp.cos(angles), jnp.sin(angles)
