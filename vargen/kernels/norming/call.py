"""The public call: the norm of rows."""

from __future__ import annotations

import jax

from vargen.kernels import dispatch
from vargen.kernels.norming import gpu
from vargen.kernels.norming.reference import Norming

NAME = "normed"
KNOWN = {"xla": lambda x, norm: norm(x), "gpu": gpu.normed}


@jax.custom_jvp
def normed(x, norm: Norming) -> jax.Array:
    """`norm(x)` of x [B, N, D]: on a GPU one kernel, which steps of decoding share, as it is told how many rows there
    are when it runs; XLA's takes the GPU's compiler longer than all else of a layer. Differentiable: as XLA's form."""
    return dispatch.run(NAME, None, KNOWN, x, norm)


@normed.defjvp
def _differentiated(primals, tangents):
    return jax.jvp(lambda x, norm: norm(x), primals, tangents)
