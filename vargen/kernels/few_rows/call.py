"""The public call: a product of few rows, with the norm before it and what is done with it behind."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vargen.kernels import dispatch
from vargen.kernels.few_rows import gpu, reference, tiles
from vargen.kernels.few_rows.reference import Matrix, Onto
from vargen.kernels.norming import Norming
from vargen.kernels.norming.gpu import normed

NAME = "few_rows"
# Up to so many rows each weight's way from memory takes longer than its products, and one program holds all rows.
FEW = 32


def _on_gpu(x, matrices, norm, onto, *, act, dtype, interpret: bool = False):
    if math.prod(x.shape[:-1]) <= FEW:
        return gpu.few_rows(x, matrices, norm, onto, act=act, dtype=dtype, interpret=interpret)
    x = (x if norm is None else normed(x, norm, interpret=interpret)).astype(dtype)
    return tiles.products(x, matrices, onto, act=act, interpret=interpret)


IMPLEMENTATIONS = {
    "xla": reference.few_rows,
    "gpu": _on_gpu,
    "gpu_interpret": functools.partial(_on_gpu, interpret=True),
}


def are_few(shape: Sequence[int]) -> bool:
    """Whether rows [B, N, D] are few, and whole: a compiler that splits programs over devices can't split a kernel."""
    return len(shape) == 3 and math.prod(shape[:-1]) <= FEW and alone()


def are_tiled(shape: Sequence[int], dtype: Any) -> bool:
    """Likewise whether they are no more than a kernel of tiles is for, in 16 bits: XLA's products of hundreds of rows
    are split along the inputs to fill the GPU, and write each part in float32 for the next launch to add."""
    if len(shape) != 3 or jnp.dtype(dtype).itemsize != 2:
        return False
    return math.prod(shape[:-1]) <= tiles.MOST and alone()


def alone() -> bool:
    """Whether programs are for one device."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == 1


def few_rows(
    x,
    matrices: Sequence[Matrix],
    *,
    norm: Norming | None = None,
    act: str = "none",
    onto: Onto | None = None,
    dtype: Any = jnp.float32,
    implementation: str | None = None,
) -> list[jax.Array]:
    """act(norm(x) W + b), or the residual plus this times a gate: one launch on a GPU, which reads the weights once.

    Args:
      x: [B, N, I], B N at most `FEW`; without gated `act`, and the norm in a launch of its own, `are_tiled` rows.
      matrices: one or several; of a gated `act` the gate's, then the other.
      norm: of x before, with the condition's scale and shift.
      act: none, silu, gelu, gelu_tanh, gelu_sigmoid; gated swiglu or geglu.
      onto: what the result is added to, of one matrix or a gated `act`.
      dtype: of the products.
      implementation: None chooses when the program is lowered: a Pallas kernel on CUDA ("gpu"), "xla" elsewhere; also
        "gpu_interpret" (the kernel's values on any platform, slowly).

    Returns:
      A result [B, N, F] of each matrix, of a gated `act` one. Differentiable: as XLA's form.

    Raises:
      ValueError: an unknown implementation (or, at lowering, one that can't run here).
    """
    dispatch.check(NAME, implementation, IMPLEMENTATIONS)
    return _traced_once((x, list(matrices), norm, onto), act, jnp.dtype(dtype), implementation)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _run(args, act, dtype, implementation):
    known = {name: functools.partial(f, act=act, dtype=dtype) for name, f in IMPLEMENTATIONS.items()}
    return dispatch.run(NAME, implementation, known, *args)


@_run.defjvp
def _differentiated(act, dtype, implementation, primals, tangents):
    def run(args):
        return reference.few_rows(*args, act=act, dtype=dtype)

    return jax.jvp(run, primals, tangents)


# A form is traced once for all products of the same shapes.
_traced_once = jax.jit(_run, static_argnums=(1, 2, 3), inline=True)
