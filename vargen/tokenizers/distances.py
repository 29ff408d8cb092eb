"""Vectors and codes: how far apart they are, and which is the nearest."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def normalised(x: jax.Array) -> jax.Array:
    """Unit vectors along the last axis; norms below 1e-12 count as that."""
    return x / jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))


def distances(vectors: jax.Array, codes: jax.Array) -> jax.Array:
    """Squared distances: float32 [M, C], [K, C] -> [M, K]."""
    # Full precision: TPUs would otherwise multiply in bfloat16 and choose other codes.
    products = jnp.matmul(vectors, codes.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.square(vectors), 1, keepdims=True) + jnp.sum(jnp.square(codes), 1) - 2.0 * products


def nearest(vectors: jax.Array, codes: jax.Array) -> jax.Array:
    """The nearest code: float32 [M, C], [K, C] -> int32 [M]. No gradient."""
    vectors, codes = jax.lax.stop_gradient((vectors, codes))
    return jnp.argmin(distances(vectors, codes), axis=-1).astype(jnp.int32)
