"""ConvS5: a state-space layer over time whose inputs and outputs are convolutions (Smith et al., arXiv 2310.19694)."""

from __future__ import annotations

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import logical
from vargen.layout import Layout
from vargen.limits import COUNT, SIZE, OneOf
from vargen.mixers.hippo import as_complex, check_blocks, discretised, hippo_n
from vargen.mixers.paths import whole_frames
from vargen.mixers.primitives import linear_scan
from vargen.mixers.rollback import not_taken_back
from vargen.slots import Grid


class ConvS5(nn.Module):
    """h_t = exp(Lambda dt) h_(t-1) + B' * u_t;  y_t = 2 Re(C * h_t) + D * u_t, * a convolution of the frame.

    The paper's recurrence with its point-wise, diagonal state kernel: every pixel has the same P complex states,
    parametrised and begun as in `S5`, and frames follow one another. The rows of a step are one frame, row by
    row. Group norms and residual convolutions between such layers, which differ among the paper's models, are
    left to the block around the mixer.

    Attributes:
      width: D, size of input and output.
      grid: the slots: F frames of H W, one level.
      state: twice P, the number of complex states kept per pixel.
      blocks: HiPPO-N matrices that Lambda begins with.
      b_size, c_size, d_size: kernel sizes of B, C and D, odd.
      activation: on y: "none" or "gelu".
      dtype: compute dtype of the convolutions; states are complex64.
    """

    width: int
    grid: Grid
    state: Annotated[int, SIZE] = 64
    blocks: Annotated[int, COUNT] = 1
    b_size: Annotated[int, COUNT] = 3
    c_size: Annotated[int, COUNT] = 3
    d_size: Annotated[int, COUNT] = 3
    activation: Annotated[str, OneOf("none", "gelu")] = "gelu"
    dtype: Any = jnp.float32

    keeps_rows = False
    reads_ahead = False

    def check(self, layout) -> None:
        """Raises ValueError for an order whose steps aren't whole frames, rows that may be taken back, and options that
        don't fit."""
        check_blocks("conv_s5", self.state, self.blocks)
        not_taken_back("conv_s5", layout)
        if any(k % 2 == 0 for k in (self.b_size, self.c_size, self.d_size)):
            raise ValueError("mixer conv_s5: expected odd kernel sizes, found an even one")
        if not whole_frames(layout, self.grid):
            raise ValueError(
                "mixer conv_s5: needs the order frames (every step a whole frame of one level) and a feed whose "
                "rows see earlier steps, found others"
            )

    def init_cache(self, batch: int, length: int) -> dict[str, jax.Array]:
        """The states before the first frame: complex64 [B, H, W, P]."""
        return {"state": jnp.zeros((batch, *self.grid.levels[0], self.state // 2), jnp.complex64)}

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """Mixes rows.

        Args:
          x: [B, N, D], N a multiple of H W: whole frames.
          layout, train: unused.
          cache: None (parallel form), or the states that earlier frames left.

        Returns:
          [B, N, D], and the new cache (None in the parallel form).
        """
        d, (height, width) = self.width, self.grid.levels[0]
        decay, hold = discretised(self, self.state, self.blocks)
        b = self._kernel("b", (self.b_size, d, self.state), (None, None, "embed", "mlp", None))
        c = self._kernel("c", (self.c_size, self.state, d), (None, None, "mlp", "embed", None))
        direct = self.param(
            "d_kernel",
            logical(nn.initializers.he_normal(), None, None, "embed", None),
            (self.d_size, self.d_size, d, d),
        )
        if self.is_initializing():
            return x, cache
        b = hold * b
        frames = x.reshape(-1, height, width, d)
        real, imag = jnp.split(self._conv(frames, jnp.concatenate([b.real, b.imag], axis=-1)), 2, axis=-1)
        drive = jax.lax.complex(real.astype(jnp.float32), imag.astype(jnp.float32))
        drive = drive.reshape(len(x), -1, height, width, drive.shape[-1])
        h = linear_scan(decay, drive, initial=None if cache is None else cache["state"])
        parts = jnp.concatenate([h.real, h.imag], axis=-1).reshape(*frames.shape[:-1], -1)
        y = self._conv(parts, 2 * jnp.concatenate([c.real, -c.imag], axis=-2)) + self._conv(frames, direct)
        y = nn.gelu(y) if self.activation == "gelu" else y
        return y.reshape(x.shape), None if cache is None else {"state": h[:, -1]}

    def _kernel(self, name, shape, names):
        """A complex kernel [K, K, I, O] from or to P states, begun as a real one from or to 2P, turned by V."""
        size, fan_in, fan_out = shape
        vectors = jnp.asarray(hippo_n(self.state, self.blocks)[1], jnp.complex64)
        deviation = math.sqrt(2 / (fan_in * size**2))

        def init(key, _, dtype=jnp.float32):
            real = deviation * jax.random.normal(key, (size, size, fan_in, fan_out), dtype)
            turned = real @ vectors.conj() if name == "b" else jnp.einsum("hwsd,sp->hwpd", real, vectors)
            return jnp.stack([turned.real, turned.imag], axis=-1)

        half = (fan_in, fan_out // 2) if name == "b" else (fan_in // 2, fan_out)
        return as_complex(self.param(name, logical(init, *names), (size, size, *half, 2)))

    def _conv(self, x, kernel):
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
