"""3x3 convolutions with 2.25 times fewer multiplications on CPUs, by Winograd's minimal filtering F(2x2, 3x3)
(Lavin & Gray, arXiv 1509.09308).

Of every 2x2 pixels of the result the 4x4 around them are taken, transformed by B; the products of transformed tiles and
kernels are sums over the channels alone, 16 matrix products; A brings them back. The image is walked in strips of rows,
so that tiles and products stay in the cache. The transforms are additions and halves: float32 is as exact as in the
direct form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# Of the paper's section 4.1; the tiles' transform is its own for rows and columns, as the two others are.
TILE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # B^T
KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))  # G
RESULT = ((1, 1, 1, 0), (0, 1, -1, -1))  # A^T
# Where it was measured to win, and the tiles of a strip that are fastest (AVX2 and AVX-512, 1 MiB of cache a core).
CHANNELS, TILES, STRIP = 64, 128, 256


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution of stride 1 over images with one pixel of zeros around them.

    Winograd's form where the program is lowered for a CPU, in float32, the sides are even and channels and pixels many;
    else, and for every other platform, XLA's own.

    Args:
      x: [B, H, W, C].
      kernel: [3, 3, C, O], of x's dtype.

    Returns:
      [B, H, W, O].
    """
    batch, height, width, _ = x.shape
    many = min(kernel.shape[2:]) >= CHANNELS and batch * height * width // 4 >= TILES
    if many and x.dtype == jnp.float32 and height % 2 == width % 2 == 0:
        return _either(x, kernel)
    return direct(x, kernel)


def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolve` by XLA's own convolution."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=layout)


@jax.custom_vjp
def _either(x, kernel):
    return jax.lax.platform_dependent(x, kernel, cpu=winograd, default=direct)


def _backward(kept, g):
    return jax.lax.platform_dependent(
        *kept, g, cpu=gradients, default=lambda x, kernel, g: jax.vjp(direct, x, kernel)[1](g)
    )


_either.defvjp(lambda *args: (_either(*args), args), _backward)


def winograd(x: jax.Array, kernel: jax.Array, transposed: bool = False) -> jax.Array:
    """`convolve` in float32 by F(2x2, 3x3).

    Args:
      x: [B, H, W, C], H and W even.
      kernel: [3, 3, C, O], or [3, 3, O, C] where it is `transposed`.

    Returns:
      [B, H, W, O].
    """
    batch, height, width, _ = x.shape
    features = kernel.shape[2 if transposed else 3]
    kernels, rows = _transform(KERNEL, kernel), _rows(*x.shape[:3])
    contracted = (((1,), (int(transposed),)), ((), ()))

    def use(k, strip, y):
        products = [
            [jax.lax.dot_general(*pair, contracted) for pair in zip(*line, strict=True)]
            for line in zip(_tiles(strip), kernels, strict=True)
        ]
        pixels = [
            [p.reshape(batch, rows // 2, 1, width // 2, 1, features) for p in line]
            for line in _transform(RESULT, products)
        ]
        pixels = jnp.concatenate([jnp.concatenate(line, axis=4) for line in pixels], axis=2)
        pixels = pixels.reshape(batch, rows, width, features)
        return jax.lax.dynamic_update_slice(y, pixels, (0, k * rows, 0, 0))

    # Every row will be written. Of zeros, the CPU's compiler would make those of all convolutions at the start.
    y = jnp.broadcast_to(x[..., :1], (batch, height, width, features))
    return _walk(height // rows, _cut(_padded(x), rows, 2), use, y)


def gradients(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of `winograd`, at x and at the kernel, from that at its result [B, H, W, O]."""
    rows, (channels, features) = _rows(*x.shape[:3]), kernel.shape[2:]
    cut_x, cut_g = _cut(_padded(x), rows, 2), _cut(g, rows, 0)

    def use(k, strip, total):
        x, g = strip
        pixels = [[g[:, i::2, j::2].reshape(-1, features) for j in range(2)] for i in range(2)]
        pairs = zip(_tiles(x), _transform(_turned(RESULT), pixels), strict=True)
        new = [[a.T @ b for a, b in zip(*line, strict=True)] for line in pairs]
        return jax.tree.map(jnp.add, total, new)

    total = [[jnp.zeros((channels, features), x.dtype)] * 4] * 4
    total = _walk(x.shape[1] // rows, lambda k: (cut_x(k), cut_g(k)), use, total)
    at_kernel = jnp.stack([jnp.stack(line) for line in _transform(_turned(KERNEL), total)])
    return winograd(g, jnp.flip(kernel, (0, 1)), transposed=True), at_kernel


def _rows(batch: int, height: int, width: int) -> int:
    """How many rows a strip has: even, and of all images, so that a batch split over devices stays so."""
    pairs, wanted = height // 2, max(2 * STRIP // (batch * width), 1)
    return 2 * max(n for n in range(1, pairs + 1) if pairs % n == 0 and n <= wanted)


def _padded(x):
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _cut(x, rows: int, more: int) -> Callable:
    """The function that cuts strip k out of x: its rows and `more` below them."""
    sizes = (x.shape[0], rows + more, *x.shape[2:])
    return lambda k: jax.lax.dynamic_slice(x, (0, k * rows, 0, 0), sizes)


def _walk(count: int, cut: Callable, use: Callable, total: Any) -> Any:
    """`total` after `use(k, cut(k), total)` for every strip.

    A strip is cut one turn ahead: the CPU's compiler would put the cut into whatever reads it, and look up its place
    again for every number, without vector instructions.
    """

    def turn(k, carry):
        strip, total = carry
        return cut(k + 1), use(k, strip, total)

    return jax.lax.fori_loop(0, count, turn, (cut(0), total))[1]


def _tiles(strip):
    """The transformed tiles of a padded strip [B, h + 2, W + 2, C]: 4x4 arrays [B h/2 W/2, C]."""
    (_, height, width, channels) = strip.shape
    taken = [[strip[:, i : height - 2 + i : 2, j : width - 2 + j : 2] for j in range(4)] for i in range(4)]
    return [[t.reshape(-1, channels) for t in line] for line in _transform(TILE, taken)]


def _transform(matrix: Sequence, grid: Any) -> list[list]:
    """matrix @ grid @ matrix^T, where the grid's entries are arrays."""
    size = range(len(matrix[0]))
    lines = [[_sum(row, [grid[k][j] for k in size]) for j in size] for row in matrix]
    return [[_sum(row, line) for row in matrix] for line in lines]


def _sum(factors: Sequence, arrays: Sequence):
    """The sum of arrays times factors: those of 0 aren't read."""
    total = None
    for factor, array in zip(factors, arrays, strict=True):
        if factor:
            term = array if abs(factor) == 1 else abs(factor) * array
            if total is None:
                total = term if factor > 0 else -term
            else:
                total = total + term if factor > 0 else total - term
    return total


def _turned(matrix: Sequence) -> list:
    return list(zip(*matrix, strict=True))
