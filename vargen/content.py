"""The contents of slots, [B, N, ...]: taken and put by slot; or a dict of such (`segments.Slots`)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def take(content: Any, slots: Any) -> Any:
    """content [B, N, ...] at slots [n] or [B, n] -> [B, n, ...]."""
    if slots.ndim == 1:
        return jax.tree.map(lambda x: jnp.take(x, slots, axis=1), content)
    return jax.tree.map(lambda x: jax.vmap(lambda c, s: jnp.take(c, s, axis=0))(x, slots), content)


def put(content: Any, slots: Any, new: Any) -> Any:
    """content [B, N, ...] with `new` [B, n, ...] at slots [B, n]; a slot of N or more is dropped."""
    one = jax.vmap(lambda c, s, d: c.at[s].set(d, mode="drop"))
    return jax.tree.map(lambda x, y: one(x, slots, y), content, new)


def choose(known: Any, a: Any, b: Any) -> Any:
    """Contents [B, N, ...]: a's at slots where `known`, bool [N], b's elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(jnp.reshape(known, (1, -1, *[1] * (y.ndim - 2))), x, y), a, b)


def repeat_to(x: Any, batch: int) -> Any:
    """x [B, ...] repeated to a multiple of its batch: rows with a condition first, then those without."""
    times = batch // x.shape[0]
    return x if times == 1 else jnp.tile(x, (times,) + (1,) * (x.ndim - 1))
