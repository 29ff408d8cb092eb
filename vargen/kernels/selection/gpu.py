"""The search for CUDA GPUs, in Pallas on Triton: a program keeps a row in its registers through all 32 bits."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.selection.xla import from_keys, to_keys

NUMBERS = 1024  # of a row that a warp holds, where it has so many


def search(x, weights, target, *, interpret: bool = False) -> jax.Array:
    """As `xla.search`."""
    rows, count = x.shape
    size = max(32, 1 << (count - 1).bit_length())
    row, one = pl.BlockSpec((None, count), lambda i: (i, 0)), pl.BlockSpec((None, 1), lambda i: (i, 0))
    return pl.pallas_call(
        functools.partial(_kernel, count=count, size=size),
        grid=(rows,),
        in_specs=[row, row, one],
        out_specs=one,
        out_shape=jax.ShapeDtypeStruct((rows, 1), jnp.float32),
        compiler_params=plgpu.CompilerParams(num_warps=min(16, max(1, size // NUMBERS)), num_stages=1),
        interpret=interpret,
    )(x, weights, target)


def _kernel(x, weights, target, out, *, count: int, size: int):
    at = jnp.arange(size)
    real = at < count
    keys = to_keys(plgpu.load(x.at[at], mask=real, other=0.0))
    weight, wanted = plgpu.load(weights.at[at], mask=real, other=0), target[0]

    def bit(i, found):
        tried = found | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
        return jnp.where(jnp.sum(jnp.where(keys >= tried, weight, 0)) >= wanted, tried, found)

    out[0] = from_keys(jax.lax.fori_loop(0, 32, bit, jnp.uint32(0)))
