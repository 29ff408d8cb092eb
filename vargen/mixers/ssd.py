"""State-space duality: Mamba-2 (arXiv 2405.21060), and its non-causal form VSSD (arXiv 2407.18559)."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import Norm, logical
from vargen.layout import Layout
from vargen.limits import COUNT, SIZE, Between
from vargen.mixers.place_conv import place_conv
from vargen.mixers.primitives import linear_attention
from vargen.mixers.recurrent import Recurrent, needs_whole_steps, sum_visible
from vargen.mixers.short_conv import short_conv
from vargen.mixers.ssm_init import dt_bias_init, uniform


class SSD(Recurrent):
    """Mamba-2 (arXiv 2405.21060): S_t = exp(dt_t A) S_(t-1) + dt_t B_t x_t^T, y_t = C_t S_t + D x_t, causal by row.

    Mamba-2, section 7: x, B and C pass a short causal convolution and silu; dt_t = softplus(its projection plus
    a bias), A = -exp(A_log) per head; the result is gated by silu(z), then normalised (root mean square).

    Attributes:
      expand: size of x over D.
      state_size: K, size of B and C.
      groups: groups of heads that share B and C.
      conv: taps of the convolution.
    """

    expand: Annotated[int, Between(1, 64)] = 2
    state_size: Annotated[int, SIZE] = 64
    groups: Annotated[int, COUNT] = 1
    conv: Annotated[int, Between(1, 63)] = 4

    @property
    def inner(self) -> int:
        return self.expand * self.width

    @property
    def channels(self) -> int:
        """Of x, B and C together: those that the convolution sees."""
        return self.inner + 2 * self.groups * self.state_size

    def init_cache(self, batch: int, length: int):
        """The state, float32 [B, H, K, V], and the convolution's last inputs [B, conv - 1, channels]."""
        state = (batch, self.heads, self.state_size, self.inner // self.heads)
        tail = (batch, self.conv - 1, self.channels)
        return {"state": jnp.zeros(state, jnp.float32), "tail": jnp.zeros(tail, self.dtype)}

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """[B, N, D] -> [B, N, D] and the cache after these rows (None in the parallel form)."""
        if self.inner % self.heads or self.heads % self.groups:
            raise ValueError(
                f"config field mixer.heads: expected heads that divide {self.inner} channels into equal parts and are "
                f"a multiple of {self.groups} groups, found {self.heads}"
            )
        bc = self.groups * self.state_size
        z = self.project("gate", x, self.inner).astype(jnp.float32)
        parts = [self.project(n, x, f) for n, f in (("value", self.inner), ("key", bc), ("query", bc))]
        dt_bias = self.param("dt_bias", logical(dt_bias_init, "heads"), (self.heads,))
        a_log = self.param("a_log", logical(_a_log_init, "heads"), (self.heads,))
        skip = self.param("skip", logical(nn.initializers.ones, "heads"), (self.heads,))
        dt = jax.nn.softplus(self.project("dt", x, self.heads).astype(jnp.float32) + dt_bias)
        mixed, remembered = self._convolve(jnp.concatenate(parts, axis=-1), layout, cache)
        value, key, query = jnp.split(nn.silu(mixed), [self.inner, self.inner + bc], axis=-1)
        key, query = (
            jnp.repeat(y.reshape(*y.shape[:2], self.groups, -1), self.heads // self.groups, axis=2)
            for y in (key, query)
        )
        value = self.split(value)
        y, state = self._mix(query, key, value, dt, -jnp.exp(a_log), layout, cache and cache["state"])
        y = y.astype(jnp.float32) + skip[:, None] * value.astype(jnp.float32)
        y = self._gated(y.reshape(z.shape), z)
        return self.out(y), cache and {"state": state} | remembered

    def _convolve(self, x, layout, cache):
        kernel = self.param("conv", logical(uniform(self.conv), None, "heads"), (self.conv, self.channels))
        bias = self.param("conv_bias", logical(nn.initializers.zeros, "heads"), (self.channels,))
        y, tail = short_conv(x, kernel, bias, cache and cache["tail"])
        return y, {"tail": tail}

    def _mix(self, query, key, value, dt, a, layout, state):
        value = (value.astype(jnp.float32) * dt[..., None]).astype(self.dtype)
        return linear_attention(query, key, value, dt * a, initial=state, return_state=True)

    def _gated(self, y, z):
        return Norm("rms", eps=1e-5, name="norm")(y * nn.silu(z))


class VSSD(SSD):
    """Mamba-2 over whole steps (VSSD, arXiv 2407.18559): y_i = C_i S + D x_i, S the sum of |A| dt_j B_j x_j^T over all
    rows of the own and earlier steps.

    How much a row adds no longer depends on the rows between: only its own weight |A| dt stays. The convolution
    is two-dimensional, over the rows of the own step at neighbouring places (see `place_conv`): VSSD's on a step
    that is a whole grid, channel by channel where a step is a single row. The result is normalised (layer norm),
    then multiplied by z, as in the authors' code.

    Attributes:
      conv: side of the convolution, odd.
    """

    conv: Annotated[int, Between(1, 63)] = 3

    def check(self, layout) -> None:
        """Raises ValueError for a feed that hides slots per example, or an even convolution."""
        needs_whole_steps("vssd", layout)
        if self.conv % 2 == 0:
            raise ValueError(f"mixer vssd: conv: expected an odd side, found {self.conv}")

    def init_cache(self, batch: int, length: int):
        """S: float32 [B, H, K, V]."""
        return {"state": super().init_cache(batch, length)["state"]}

    def _convolve(self, x, layout, cache):
        shape = (self.conv, self.conv, self.channels)
        kernel = self.param("conv", logical(uniform(self.conv**2), None, None, "heads"), shape)
        bias = self.param("conv_bias", logical(nn.initializers.zeros, "heads"), (self.channels,))
        return place_conv(x, kernel, bias, layout), {}

    def _mix(self, query, key, value, dt, a, layout, state):
        value = (value.astype(jnp.float32) * (-dt * a)[..., None]).astype(self.dtype)
        return sum_visible(query, key, value, layout, state)

    def _gated(self, y, z):
        return Norm("layer", eps=1e-5, name="norm")(y) * z


def _a_log_init(key, shape, dtype=jnp.float32):
    """-A is uniform in 1 to 16."""
    return jnp.log(jax.random.uniform(key, shape, dtype, 1.0, 16.0))
