"""Initialisers of state-space mixers, as in the code of Mamba's authors (arXiv 2312.00752, 2405.21060)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def each(init):
    """An initialiser of a set for each path: each as if alone."""

    def initialise(key, shape, dtype=jnp.float32):
        return jax.vmap(lambda k: init(k, shape[1:], dtype))(jax.random.split(key, shape[0]))

    return initialise


def uniform(fan: int):
    """Uniform within 1 / sqrt(fan)."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / math.sqrt(fan)

    return init


def dt_bias_init(key, shape, dtype=jnp.float32):
    """softplus of it is log-uniform in [0.001, 0.1]."""
    dt = jnp.exp(jax.random.uniform(key, shape, dtype, math.log(1e-3), math.log(1e-1)))
    return dt + jnp.log(-jnp.expm1(-dt))


def log_a_init(key, shape, dtype=jnp.float32):
    """A = -(1, ..., S) in every channel (S4D-Real)."""
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=dtype)), shape)
