"""MS-SSIM (Wang et al. 2003) that gradients go through, as a loss of autoencoders (arXiv 1511.06409)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

# Powers of the scales, fine to coarse.
SCALES = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
WINDOW, SIGMA, RANGE = 11, 1.5, 2.0
C1, C2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
# What a similarity counts as at least: at 0 the powers below 1 have an infinite slope.
FLOOR = 1e-3


def ms_ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Structural similarity at several scales: float32 [B] for images [B, H, W, C] in [-1, 1], 1 for equal ones.

    What `evaluation.metrics.ms_ssim` measures, whose sizes of windows and scales for small pictures are these too, but
    that similarities of a scale below `FLOOR` count as it.
    """
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    scales = int(np.clip(np.log2(min(a.shape[1:3]) / WINDOW) + 1, 1, len(SCALES)))
    powers, result = SCALES[:scales] / SCALES[:scales].sum(), jnp.ones((a.shape[0], a.shape[3]))
    for i, power in enumerate(powers):
        luminance, structure = _similarity(a, b)
        last = luminance * structure if i == scales - 1 else structure
        result *= jnp.maximum(jnp.mean(last, axis=(1, 2)), FLOOR) ** power
        if i < scales - 1:
            a, b = _halved(a), _halved(b)
    return jnp.mean(result, axis=1)


def _similarity(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Luminance, and contrast with structure, of every window: [B, h, w, C]."""
    means = _blur(jnp.concatenate([a, b, a * a, b * b, a * b], axis=-1))
    mean_a, mean_b, *squares, product = jnp.split(means, 5, axis=-1)
    var_a, var_b = (x - mean**2 for x, mean in zip(squares, (mean_a, mean_b), strict=True))
    covariance = product - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return luminance, (2 * covariance + C2) / (var_a + var_b + C2)


def _blur(x: jax.Array) -> jax.Array:
    """Whole Gaussian windows along rows and columns, of pictures under 11 pixels the largest odd one that fits."""
    side = min(WINDOW, *x.shape[1:3])
    side -= (side + 1) % 2
    weights = np.exp(-0.5 * ((np.arange(side) - side // 2) / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        size = x.shape[axis] - side + 1
        # Sums and no convolution: products would be rounded to bfloat16 on TPUs, and variances are small differences.
        x = sum(float(w) * jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i, w in enumerate(weights))
    return x


def _halved(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, H // 2, W // 2, C], means of 2x2 pixels."""
    batch, height, width = len(x), x.shape[1] // 2, x.shape[2] // 2
    return x[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, -1).mean(axis=(2, 4))
