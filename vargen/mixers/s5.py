"""S5: a diagonal state-space layer with many inputs and outputs (Smith, Warrington & Linderman, arXiv 2208.04933)."""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import Dense, logical
from vargen.layout import Layout
from vargen.limits import COUNT, SIZE, OneOf
from vargen.mixers.hippo import as_complex, b_init, c_init, check_blocks, discretised
from vargen.mixers.primitives import linear_scan
from vargen.mixers.recurrent import nothing_hidden


class S5(nn.Module):
    """h_n = exp(Lambda dt) h_(n-1) + B' x_n;  y_n = 2 Re(C h_n) + D x_n, then a gate.

    Complex diagonal states, of which one of each conjugate pair is kept; B' is B held constant over a step of
    learned length dt (zero-order hold). Causal along the rows, in generation sequence: every order is legal.

    Attributes:
      width: D, size of input and output.
      kernel_init: initialiser of the gate's kernels.
      state: twice P, the number of complex states kept.
      blocks: HiPPO-N matrices that Lambda begins with, one beside the other.
      activation: on y: "none", "gelu", "half_glu1" (g * sigmoid(W g) with g = gelu(y)), "half_glu2"
        (y * sigmoid(W g)) or "full_glu" (V g * sigmoid(W g)): the names of the authors' code.
      dtype: compute dtype; states are complex64.
    """

    width: int
    kernel_init: Any
    state: Annotated[int, SIZE] = 64
    blocks: Annotated[int, COUNT] = 1
    activation: Annotated[str, OneOf("none", "gelu", "half_glu1", "half_glu2")] = "half_glu1"
    dtype: Any = jnp.float32

    keeps_rows = False
    reads_ahead = False

    def check(self, layout) -> None:
        """Raises ValueError for options that don't fit, and for rows that later ones don't see."""
        nothing_hidden("s5", layout)
        check_blocks("s5", self.state, self.blocks)

    def init_cache(self, batch: int, length: int) -> dict[str, jax.Array]:
        """The states before the first row: complex64 [B, P]."""
        return {"state": jnp.zeros((batch, self.state // 2), jnp.complex64)}

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """Mixes rows.

        Args:
          x: [B, N, D].
          layout, train: unused.
          cache: None (parallel form), or the states that earlier rows left.

        Returns:
          [B, N, D], and the new cache (None in the parallel form).
        """
        d = self.width
        decay, hold = discretised(self, self.state, self.blocks)
        b = as_complex(
            self.param(
                "b", logical(b_init(self.state, self.blocks), "mlp", "embed", None), (self.state // 2, d, 2)
            )
        )
        c = as_complex(
            self.param(
                "c", logical(c_init(self.state, self.blocks), "embed", "mlp", None), (d, self.state // 2, 2)
            )
        )
        skip = self.param("d", logical(nn.initializers.normal(1.0), "embed"), (d,))
        b = hold[:, None] * b
        x = x.astype(self.dtype)
        product = jnp.concatenate([b.real, b.imag]).astype(self.dtype)
        real, imag = jnp.split(
            jnp.einsum("bnd,pd->bnp", x, product, preferred_element_type=jnp.float32), 2, -1
        )
        h = linear_scan(decay, jax.lax.complex(real, imag), initial=None if cache is None else cache["state"])
        parts = jnp.concatenate([h.real, h.imag], axis=-1).astype(self.dtype)
        product = 2 * jnp.concatenate([c.real, -c.imag], axis=-1).astype(self.dtype)
        y = jnp.einsum("bnp,dp->bnd", parts, product) + skip.astype(self.dtype) * x
        return self._activate(y), None if cache is None else {"state": h[:, -1]}

    def _activate(self, y):
        def dense(name, x):
            return Dense(self.width, ("embed", "heads"), self.kernel_init, dtype=self.dtype, name=name)(x)

        if self.activation == "none":
            return y
        g = nn.gelu(y)
        if self.activation == "gelu":
            return g
        carried = {"half_glu1": g, "half_glu2": y}.get(self.activation)
        carried = dense("value", g) if carried is None else carried
        return carried * nn.sigmoid(dense("gate", g))
