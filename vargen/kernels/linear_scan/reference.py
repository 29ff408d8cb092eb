"""The recurrence by its definition: for tests; differentiated by JAX itself, which keeps every product."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def linear_scan_reference(a, b, *, axis: int = 1, reverse: bool = False, initial=None) -> jax.Array:
    """As `linear_scan`, without its checks, its accumulation in float32 and its gradient."""
    dtype = jnp.result_type(a, b)
    a = jnp.moveaxis(jnp.broadcast_to(a, b.shape).astype(dtype), axis, 0)
    b = jnp.moveaxis(b.astype(dtype), axis, 0)
    initial = jnp.zeros_like(b[0]) if initial is None else initial.astype(dtype)

    def step(h, ab):
        h = ab[0] * h + ab[1]
        return h, h

    _, h = jax.lax.scan(step, initial, (a, b), reverse=reverse)
    return jnp.moveaxis(h, 0, axis)
