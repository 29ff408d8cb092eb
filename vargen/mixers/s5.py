"""S5: a diagonal state-space layer with many inputs and outputs (Smith, Warrington & Linderman, arXiv 2208.04933)."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.kernels.linear_scan import linear_scan
from vargen.layers import Dense, logical
from vargen.mixers.layout import Layout

ACTIVATIONS = ("none", "gelu", "half_glu1", "half_glu2", "full_glu")
# Eigenvalues stay left of this, so that states don't grow over any length (the authors' `clip_eigs`).
RIGHTMOST = -1e-4


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
    state: int = 64
    blocks: int = 1
    activation: str = "half_glu1"
    dtype: Any = jnp.float32

    def check(self, order, feed) -> None:
        """Raises ValueError for options that don't fit; honours every order and feed."""
        check_options("s5", self.state, self.blocks, self.activation, ACTIVATIONS)

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


def check_options(mixer: str, state: int, blocks: int, activation: str, activations) -> None:
    """Raises ValueError for what S5's parametrisation can't be built with."""
    if activation not in activations:
        raise ValueError(
            f"mixer {mixer}: activation: expected {', '.join(activations)}, found {activation!r}"
        )
    if blocks < 1 or state < 1 or state % (2 * blocks):
        raise ValueError(
            f"mixer {mixer}: state: expected a multiple of twice the {blocks} blocks, found {state}"
        )


def hippo_n(state: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """The normal part of HiPPO-LegS, diagonal (HiPPO-N: Gu et al., arXiv 2206.11893).

    Args:
      state: twice P, a multiple of 2 blocks.
      blocks: equal matrices along the diagonal.

    Returns:
      complex128 eigenvalues Lambda [P] of negative imaginary part, one of each conjugate pair, and their
      orthonormal eigenvectors V [2P, P].
    """
    n = np.arange(state // blocks)
    # HiPPO-LegS plus its rank-one part p p^T, p_n = sqrt(n + 1/2): -1/2 plus a skew-symmetric matrix.
    skew = -np.sqrt(np.outer(n + 0.5, n + 0.5)) * np.sign(n[:, None] - n)
    imag, vectors = np.linalg.eigh(-1j * skew)
    half = len(n) // 2
    values = np.tile(-0.5 + 1j * imag[:half], blocks)
    return values, np.kron(np.eye(blocks), vectors[:, :half])


def discretised(module: nn.Module, state: int, blocks: int) -> tuple[jax.Array, jax.Array]:
    """Makes the parameters of the states, inside a compact module.

    Returns:
      complex64 [P] twice: exp(Lambda dt), and what B is multiplied with, (exp(Lambda dt) - 1) / Lambda.
    """
    values, _ = hippo_n(state, blocks)

    def constant(x):
        return logical(lambda key, shape, dtype=jnp.float32: jnp.asarray(x, dtype), "mlp")

    real = module.param("lambda_re", constant(values.real), values.shape)
    imag = module.param("lambda_im", constant(values.imag), values.shape)
    log_step = module.param("log_step", logical(_log_step, "mlp"), values.shape)
    values = jax.lax.complex(jnp.minimum(real, RIGHTMOST), imag)
    decay = jnp.exp(values * jnp.exp(log_step))
    return decay, (decay - 1) / values


def as_complex(x) -> jax.Array:
    """float32 [..., 2], real and imaginary parts, as complex64 [...]."""
    return jax.lax.complex(x[..., 0], x[..., 1])


def b_init(state: int, blocks: int):
    """V* times a real matrix [2P, D] of deviation 1 / sqrt(2P), as in the authors' code; [P, D, 2]."""
    vectors = jnp.asarray(hippo_n(state, blocks)[1], jnp.complex64)

    def init(key, shape, dtype=jnp.float32):
        b = nn.initializers.lecun_normal()(key, (state, shape[1]), dtype)
        return _parts(jnp.einsum("sp,sd->pd", vectors.conj(), b))

    return init


def c_init(state: int, blocks: int):
    """A complex matrix [D, 2P] of deviation 1 / sqrt(2P) in each part, times V; [D, P, 2]."""
    vectors = jnp.asarray(hippo_n(state, blocks)[1], jnp.complex64)

    def init(key, shape, dtype=jnp.float32):
        c = nn.initializers.truncated_normal(1 / math.sqrt(state))(key, (shape[0], state, 2), dtype)
        return _parts(as_complex(c) @ vectors)

    return init


def _parts(x):
    return jnp.stack([x.real, x.imag], axis=-1)


def _log_step(key, shape, dtype=jnp.float32):
    """Steps log-uniform in [0.001, 0.1]."""
    return jax.random.uniform(key, shape, dtype, math.log(1e-3), math.log(1e-1))
