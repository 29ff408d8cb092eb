"""The public call."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def linear_scan(
    a, b, *, axis: int = 1, reverse: bool = False, initial=None, implementation: str | None = None
):
    """h_t = a_t h_(t-1) + b_t along one axis.

    Args:
      a: broadcastable to b; real or complex.
      b: [..., N, ...], N along `axis`.
      axis: the axis of the recurrence.
      reverse: from the last to the first.
      initial: h before the first: b's shape without `axis`; zeros by default.

    Returns:
      h, b's shape.
    """
    a = jnp.broadcast_to(a, b.shape)
    a, b = jnp.moveaxis(a, axis, 0), jnp.moveaxis(b, axis, 0)
    initial = jnp.zeros_like(b[0]) if initial is None else initial

    def step(h, ab):
        h = ab[0] * h + ab[1]
        return h, h

    _, h = jax.lax.scan(step, initial, (a, b), reverse=reverse)
    return jnp.moveaxis(h, 0, axis)
