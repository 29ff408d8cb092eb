"""Spectral normalisation (arXiv 1802.05957): kernels divided by their largest singular value.

The singular value is followed by power iteration, one an update (algorithm 1). What is kept between updates, the left
singular vector of each kernel, is statistics and no parameter: it goes in and comes out, so that a resumed run goes on
with it, and where one update starts is where the last ended. To find it anew each time, from a fixed start, would take
no state but tens of iterations for the same accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vargen.weights_file import flatten, unflatten

EPS = 1e-12


def start(params: Mapping[str, Any]) -> dict[str, Any]:
    """Unit vectors float32 [O] in the places of the kernels [..., O] of a nested dict of arrays or shapes."""
    sizes = {name: x.shape[-1] for name, x in flatten(params) if name.rpartition("/")[2] == "kernel"}
    return unflatten({name: jnp.full((size,), size**-0.5, jnp.float32) for name, size in sizes.items()})


def normalised(
    params: Mapping[str, Any], vectors: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters whose kernels are divided by their norms, and the vectors after an iteration.

    Of W [O, I], a kernel [..., O] whose other axes are one: v = W' u / |W' u|, u = W v / |W v|, W / (u' W v). Vectors
    have no gradient, the norm has.

    Args:
      params: nested dict of float32.
      vectors: of `start` or of the update before.
    """
    flat, new = dict(flatten(params)), {}
    for name, u in flatten(vectors):
        kernel = flat[name]
        matrix = kernel.reshape(-1, kernel.shape[-1])
        fixed = jax.lax.stop_gradient(matrix)
        v = _unit(_product(fixed, u))
        new[name] = _unit(_product(fixed.T, v))
        flat[name] = kernel / jnp.maximum(jnp.vdot(v, _product(matrix, new[name])), EPS)
    return unflatten(flat), unflatten(new)


def _product(matrix: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.matmul(matrix, x, precision=jax.lax.Precision.HIGHEST)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), EPS)
