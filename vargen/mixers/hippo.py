"""The parametrisation of S5's states (arXiv 2208.04933): HiPPO-N, discretised, one of each conjugate pair."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.layers import logical

# Eigenvalues stay left of this, so that states don't grow over any length (the authors' `clip_eigs`).
RIGHTMOST = -1e-4


def check_blocks(mixer: str, state: int, blocks: int) -> None:
    """Raises ValueError for a state that doesn't divide into its blocks' conjugate pairs."""
    if state % (2 * blocks):
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
