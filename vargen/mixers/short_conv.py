"""The short causal depthwise convolution of gated linear mixers (H3, arXiv 2212.14052; Mamba, arXiv 2312.00752)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def short_conv(x, kernel, bias=None, tail=None) -> tuple[jax.Array, jax.Array]:
    """y_n = bias + sum_w kernel_w x_(n - (W-1) + w): every channel by itself, the last tap on the row itself.

    Args:
      x: [B, N, C], rows in generation sequence.
      kernel: [W, C], W at least 1.
      bias: [C] or None.
      tail: [B, W-1, C], the rows before the first; zeros by default.

    Returns:
      y [B, N, C] in x's dtype (float32 inside), and the new tail [B, W-1, C], the last W-1 rows seen, in the
      old tail's dtype (x's without one).
    """
    width, n = kernel.shape[0], x.shape[1]
    if tail is None:
        tail = jnp.zeros((x.shape[0], width - 1, x.shape[2]), x.dtype)
    rows = jnp.concatenate([tail.astype(x.dtype), x], axis=1)
    y = sum(kernel[w].astype(jnp.float32) * rows[:, w : w + n] for w in range(width))
    y = y if bias is None else y + bias.astype(jnp.float32)
    return y.astype(x.dtype), rows[:, n:].astype(tail.dtype)
