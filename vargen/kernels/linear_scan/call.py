"""The public call: checks, one canonical layout, and the gradient around every implementation."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from vargen.kernels import dispatch
from vargen.kernels.linear_scan import gpu, tpu, xla

IMPLEMENTATIONS = {
    "xla": xla.sequential,
    "sequential": xla.sequential,
    "associative": xla.associative,
    "chunked": xla.chunked,
    **dispatch.kernels(tpu.scan, gpu.scan),
}
# What the Pallas kernels take; the rest goes through XLA everywhere.
KERNEL_DTYPES = ("float32", "bfloat16", "complex64")


def linear_scan(
    a, b, *, axis: int = 1, reverse: bool = False, initial=None, implementation: str | None = None
) -> jax.Array:
    """h_t = a_t h_(t-1) + b_t along one axis, a diagonal recurrence.

    Its gradient is the scan in the other direction and keeps a, h and `initial` alone (Martin and Cundy,
    arXiv 1709.04057). Differentiable in reverse mode, once.

    Args:
      a: broadcastable to b; real or complex. Where it is constant along all axes before `axis`, along `axis`
        or along all after it, it is not expanded.
      b: [..., N, ...], N along `axis`; real or complex.
      axis: the axis of the recurrence.
      reverse: from the last to the first, h_t = a_t h_(t+1) + b_t.
      initial: h before the first: b's shape without `axis`; zeros by default.
      implementation: None chooses by platform; "sequential", "associative" and "chunked" (XLA; "xla" is the
        fastest of them on the CPU), "tpu" and "gpu" (Pallas), "tpu_interpret" and "gpu_interpret" (the same
        on any platform, slowly). "gpu" needs compute capability 8.0.

    Returns:
      h, b's shape, in the dtype a and b promote to; carried in float32 (complex64) or wider.

    Raises:
      ValueError: shapes or dtypes that don't fit, an axis b doesn't have, an unknown implementation; or,
        when compiled, one that the platform can't run.
    """
    dispatch.check("linear_scan", implementation, IMPLEMENTATIONS)
    a, b = jnp.asarray(a), jnp.asarray(b)
    dtype = promoted("linear_scan", a, b)
    wide = jnp.promote_types(dtype, jnp.float32)
    if not -b.ndim <= axis < b.ndim:
        raise ValueError(f"linear_scan: axis: expected one of the {b.ndim} axes of b, found {axis}")
    axis %= b.ndim
    a = fits("linear_scan", "a", a, b)
    state = b.shape[:axis] + b.shape[axis + 1 :]
    initial = jnp.zeros(state, wide) if initial is None else jnp.asarray(initial)
    if initial.shape != state or jnp.promote_types(initial.dtype, wide) != wide:
        raise ValueError(
            f"linear_scan: initial: expected {state} that {wide} holds, found {initial.shape} {initial.dtype}"
        )
    if dtype not in KERNEL_DTYPES and (implementation or "xla").startswith(("tpu", "gpu")):
        expected = ", ".join(KERNEL_DTYPES)
        raise ValueError(
            f"linear_scan: implementation {implementation!r}: expected one of {expected}, found {dtype}"
        )
    if b.size == 0:
        return b.astype(dtype)
    a, b, initial = a.astype(dtype), b.astype(dtype), initial.astype(wide)
    if b.shape[axis] == 1:
        return (a * jnp.expand_dims(initial, axis) + b).astype(dtype)

    # One layout for all: [rows, N, channels].
    rows, channels = math.prod(b.shape[:axis]), math.prod(b.shape[axis + 1 :])
    lead, tail = _fold(a.shape[:axis], b.shape[:axis]), _fold(a.shape[axis + 1 :], b.shape[axis + 1 :])
    a = jnp.broadcast_to(a, (*lead, a.shape[axis], *tail))
    a = a.reshape(math.prod(lead), a.shape[axis], math.prod(tail))
    shape, b, initial = b.shape, b.reshape(rows, -1, channels), initial.reshape(rows, channels)
    if channels > 1:
        return _scan(a, b, initial, reverse, implementation).reshape(shape)
    # Channels are what is computed side by side: there must be some.
    return _scan(a.T, b.T, initial.T, reverse, implementation).T.reshape(shape)


def promoted(name: str, *arrays):
    """The dtype they promote to; ValueError where that is neither real nor complex."""
    dtype = jnp.result_type(*arrays)
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(f"{name}: expected real or complex numbers, found {dtype}")
    return dtype


def fits(name: str, argument: str, a, b) -> jax.Array:
    """a with b's rank; ValueError where it is not broadcastable to b."""
    if a.ndim > b.ndim or any(x not in (1, y) for x, y in zip(a.shape[::-1], b.shape[::-1])):
        raise ValueError(
            f"{name}: {argument}: expected a shape broadcastable to b's {b.shape}, found {a.shape}"
        )
    return a.reshape((1,) * (b.ndim - a.ndim) + a.shape)


def _fold(before: tuple, after: tuple) -> tuple:
    """What a has on a group of axes: one entry in all, or each of b's."""
    return before if math.prod(before) == 1 else after


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _scan(a, b, initial, reverse, implementation):
    return _run(a, b, initial, implementation, reverse=reverse, late=False)


def _forward(a, b, initial, reverse, implementation):
    h = _run(a, b, initial, implementation, reverse=reverse, late=False)
    return h, (a, h, initial)


def _backward(reverse, implementation, kept, dh):
    a, h, initial = kept
    # JAX's cotangents of complex numbers are transposed, not conjugated.
    db = _run(a, dh, jnp.zeros_like(initial), implementation, reverse=not reverse, late=True)
    before = xla.shift(h.astype(initial.dtype), initial[:, None], axis=1, reverse=reverse)
    summed = [i for i in range(3) if a.shape[i] < h.shape[i]]
    da = jnp.sum(db * before, axis=summed, keepdims=True).astype(a.dtype)
    first = -1 if reverse else 0
    return da, db, a[:, first] * db[:, first].astype(initial.dtype)


_scan.defvjp(_forward, _backward)


def _run(a, b, initial, implementation, **options):
    known = {name: functools.partial(f, **options) for name, f in IMPLEMENTATIONS.items()}
    if b.dtype not in KERNEL_DTYPES:
        del known["tpu"], known["gpu"]
    return dispatch.run("linear_scan", implementation, known, a, b, initial)
