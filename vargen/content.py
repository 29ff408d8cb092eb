"""The contents of slots, [B, N, ...]: taken and put by slot, and with noise; or a dict of such (`segments.Slots`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Noised:
    """Contents with noise, which heads that draw a step over several passes are trained on and refine.

    Attributes:
      clean: [B, N, C], canonical: what is known, numbers float32 or bits int32.
      content: [B, N, C]: with noise; in decoding `clean` with the step's draft in its place.
      level: how much noise, 0 (none) to 1000 (nothing else): float32 [B, N], the same for all slots of a step; in
        decoding [], of the step's draft.
      target: what the head is to predict, float32 [B, N, C] or arrays [B, N, ...]; None in decoding.
    """

    clean: jax.Array
    content: jax.Array
    level: Any
    target: Any = None


UNSEEN = -1  # in the place of a code that a row is not to see


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
