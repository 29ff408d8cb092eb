"""The contents of slots, [B, N, ...]: taken and put by slot."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def take(content: jax.Array, slots: Any) -> jax.Array:
    """content [B, N, ...] at slots [n] or [B, n] -> [B, n, ...]."""
    if slots.ndim == 1:
        return jnp.take(content, slots, axis=1)
    return jax.vmap(lambda c, s: jnp.take(c, s, axis=0))(content, slots)


def put(content: jax.Array, slots: Any, new: jax.Array) -> jax.Array:
    """content [B, N, ...] with `new` [B, n, ...] at slots [B, n]; a slot of N or more is dropped."""
    return jax.vmap(lambda c, s, d: c.at[s].set(d, mode="drop"))(content, slots, new)


def repeat_to(x: Any, batch: int) -> Any:
    """x [B, ...] repeated to a multiple of its batch: rows with a condition first, then those without."""
    times = batch // x.shape[0]
    return x if times == 1 else jnp.tile(x, (times,) + (1,) * (x.ndim - 1))
