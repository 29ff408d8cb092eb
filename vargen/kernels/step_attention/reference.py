"""Step-masked attention by its definition, dense: for tests and for shapes too small to cut."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def visible(q_step, k_step, *, strict: bool, window: int | None):
    """bool [..., N, M]: whether query i sees key j, from steps [..., N] and [..., M]."""
    q, k = q_step[..., :, None], k_step[..., None, :]
    seen = (k < q) if strict else (k <= q)
    return seen if window is None else seen & (k >= q - window)


def attend(q, k, v, mask, scale: float) -> jax.Array:
    """softmax(scale q k^T) v over the visible keys; zeros where a query sees nothing.

    Args:
      q: [B, G, R, N, D], R query heads to each of G key heads.
      k, v: [B, G, M, D].
      mask: bool, broadcastable to [B, G, R, N, M], or None where everything is visible.
      scale: factor on the logits.

    Returns:
      [B, G, R, N, D] in v's dtype; logits and softmax are float32.
    """
    logits = jnp.einsum("bgrnd,bgmd->bgrnm", q, k, preferred_element_type=jnp.float32) * scale
    if mask is not None:
        logits = jnp.where(mask, logits, -jnp.inf)
    peak = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - jnp.where(jnp.isfinite(peak), peak, 0.0))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = jnp.einsum("bgrnm,bgmd->bgrnd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (out / jnp.where(total > 0, total, 1.0)).astype(v.dtype)
