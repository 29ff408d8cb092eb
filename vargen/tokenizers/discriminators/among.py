"""Sets of pictures of a batch that see each other."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import logical


def groups(batch: int, most: int) -> int:
    """The size of equal sets that a batch is cut into: its largest divisor of at most `most`."""
    return next(n for n in range(min(most, batch), 0, -1) if batch % n == 0)


class GhostBatchNorm(nn.Module):
    """Batch normalisation by the statistics of at most eight pictures that follow each other in the batch (arXiv
    1705.08741), so that they are the same on any number of devices. No running averages, which nothing would read.

    Attributes:
      most: how many.
      eps: added to the variance.
    """

    most: int = 8
    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float32 [B, ..., C] -> [B, ..., C]."""
        channels = x.shape[-1]
        scale = self.param("scale", logical(nn.initializers.ones, "conv"), (channels,))
        bias = self.param("bias", logical(nn.initializers.zeros, "conv"), (channels,))
        together = x.reshape(-1, groups(len(x), self.most) * math.prod(x.shape[1:-1]), channels)
        centred = together - together.mean(axis=1, keepdims=True)
        variance = jnp.square(centred).mean(axis=1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + self.eps)).reshape(x.shape) * scale + bias
