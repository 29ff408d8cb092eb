"""What the call computes, by its definition: the truth for every other implementation, and what runs elsewhere."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vargen.kernels.keeping import keeps_inputs
from vargen.kernels.norming import Norming, Part


def _gelu(x):
    # In float32: of bfloat16 XLA makes the argument of the error function an array of its own, in a launch.
    y = x.astype(jnp.float32)
    return (0.5 * y * jax.lax.erfc(-math.sqrt(0.5) * y)).astype(x.dtype)


GELU = {
    "gelu": _gelu,
    "gelu_tanh": jax.nn.gelu,
    "gelu_sigmoid": lambda x: x * jax.nn.sigmoid(1.702 * x),
}
ACTIVATIONS = {n: keeps_inputs(f) for n, f in {"none": lambda x: x, "silu": jax.nn.silu, **GELU}.items()}
GATED = {
    "swiglu": keeps_inputs(lambda gate, up: jax.nn.silu(gate) * up),
    "geglu": keeps_inputs(lambda gate, up: _gelu(gate) * up),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Matrix:
    """A dense layer's parameters: kernel [I, F]; of 8 bits with a scale [F] beside it; bias [F]."""

    kernel: jax.Array
    scale: jax.Array | None = None
    bias: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Onto:
    """What a product is added to: the residual [B, N, F]; times the gate, where there is one."""

    residual: jax.Array
    gate: Part | None


@keeps_inputs  # x as it comes, which others may keep as well
def multiplied(x, matrix: Matrix):
    """x W + b: [..., I] -> [..., F], in x's dtype."""
    # As one product of two matrices: XLA's CPU gradient of a batched one is slower.
    y = x.reshape(-1, x.shape[-1]) @ matrix.kernel.astype(x.dtype)
    y = y if matrix.scale is None else y * matrix.scale.astype(x.dtype)
    y = y if matrix.bias is None else y + matrix.bias.astype(x.dtype)
    return y.reshape(*x.shape[:-1], y.shape[-1])


@keeps_inputs
def gated(y, gate):
    """y times the gate."""
    return y * gate


def few_rows(
    x, matrices: Sequence[Matrix], norm: Norming | None, onto: Onto | None, *, act: str, dtype: Any
) -> list[jax.Array]:
    """See the public call."""
    if norm is not None:
        x = norm(x)
    found = [multiplied(x.astype(dtype), matrix) for matrix in matrices]
    found = [GATED[act](*found)] if act in GATED else [ACTIVATIONS[act](y) for y in found]
    if onto is None:
        return found
    return [onto.residual + (y if onto.gate is None else gated(y, onto.gate.rows())) for y in found]
