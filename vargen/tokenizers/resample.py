"""Resampling of latent grids between levels, as matrices.

Published multi-scale tokenizers resample with PyTorch's `area` (adaptive average pooling, whose windows
overlap where sizes do not divide) and `bicubic` (a = -0.75, borders clamped, no antialiasing).
`jax.image.resize` computes something else, so both are built here in float64 and applied separably.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

CUBIC_A = -0.75
# Between grids up to this side all products are of the larger one's, and the same program: there are many of them, and
# each would be compiled.
SMALL = 32


@functools.cache
def area_matrix(source: int, target: int) -> np.ndarray:
    """float32 [target, source]: output i averages inputs floor(i s/t) up to ceil((i+1) s/t)."""
    matrix = np.zeros((target, source))
    for i in range(target):
        first, last = i * source // target, -((-(i + 1) * source) // target)
        matrix[i, first:last] = 1.0 / (last - first)
    return matrix.astype(np.float32)


@functools.cache
def bicubic_matrix(source: int, target: int, more: float = 0.0) -> np.ndarray:
    """float32 [target, source]: Keys' cubic convolution with half-pixel centres (align_corners=False).

    Scaled by (target + more) / source, as PyTorch does where it is told a scale and not a size.
    """
    if source == target:
        return np.eye(source, dtype=np.float32)
    matrix = np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * source / (target + more) - 0.5
        first = int(np.floor(centre))
        for tap in range(first - 1, first + 3):
            matrix[i, min(max(tap, 0), source - 1)] += _cubic(abs(centre - tap))
    return matrix.astype(np.float32)


def area(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """[B, h, w, C] -> float32 [B, *size, C] by adaptive averages."""
    return _separable(x, area_matrix, size)


def bicubic(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """[B, h, w, C] -> float32 [B, *size, C] by cubic interpolation."""
    return _separable(x, bicubic_matrix, size)


def _separable(x, matrix, size):
    if x.shape[1:3] == tuple(size):
        return x
    sides = [(a, b, _power(max(a, b))) for a, b in zip(x.shape[1:3], size, strict=True)]
    small = max(power for *_, power in sides) <= SMALL
    if small:
        x = jnp.pad(x, ((0, 0), *((0, power - a) for a, _, power in sides), (0, 0)))
    rows, columns = (
        _padded(matrix(a, b), (power, power) if small else (_power(b), a)) for a, b, power in sides
    )
    # Full precision: on TPUs the default would round the latents to bfloat16 and change the codes chosen.
    y = jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x, precision=jax.lax.Precision.HIGHEST)
    return y[:, : size[0], : size[1]]


def _padded(matrix, shape):
    return np.pad(matrix, [(0, n - m) for m, n in zip(matrix.shape, shape, strict=True)])


def _power(n: int) -> int:
    """For other numbers XLA's compiler for GPUs may find no tiling."""
    return 1 << (n - 1).bit_length()


def _cubic(t: float) -> float:
    a = CUBIC_A
    if t <= 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    if t < 2:
        return a * (((t - 5) * t + 8) * t - 4)
    return 0.0
