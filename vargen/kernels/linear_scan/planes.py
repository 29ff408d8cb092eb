"""Numbers as tuples of real arrays, (x,) or (real, imaginary): Pallas has no complex ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Planes = tuple[jax.Array, ...]


def split(x) -> Planes:
    return (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)


def join(x: Planes) -> jax.Array:
    return jax.lax.complex(*x) if len(x) == 2 else x[0]


def one(like: Planes) -> Planes:
    return (jnp.ones_like(like[0]), *(jnp.zeros_like(y) for y in like[1:]))


def add(x: Planes, y: Planes) -> Planes:
    return tuple(p + q for p, q in zip(x, y, strict=True))


def multiply(x: Planes, y: Planes) -> Planes:
    if len(x) == 1:
        return (x[0] * y[0],)
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def where(mask, x: Planes, y: Planes) -> Planes:
    return tuple(jnp.where(mask, p, q) for p, q in zip(x, y, strict=True))
