"""The search and the filters for CUDA GPUs, in Pallas on Triton: a program keeps a row in its registers through all 32
bits, of a top k and then of a nucleus."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.selection.xla import ROUNDING, from_keys, to_keys

NUMBERS = 1024  # of a row that a warp holds, where it has so many
# Programs of a grid, or multiples of the last: calls that differ in their rows alone share one kernel, which is
# compiled once. Those without a row end at once.
GRIDS = (1, 16, 256)


def search(x, weights, target, *, interpret: bool = False) -> jax.Array:
    """As `xla.search`."""
    rows, count = x.shape
    row, one = pl.BlockSpec((None, count), lambda i: (i, 0)), pl.BlockSpec((None, 1), lambda i: (i, 0))
    return pl.pallas_call(
        functools.partial(_search, size=_size(count)),
        grid=(rows,),
        in_specs=[row, row, one],
        out_specs=one,
        out_shape=jax.ShapeDtypeStruct((rows, 1), jnp.float32),
        compiler_params=_params(count),
        interpret=interpret,
    )(x, weights, target)


def filtered(x, top_k: int, top_p=None, *, interpret: bool = False) -> jax.Array:
    """As `xla.filtered`."""
    rows, count = x.shape
    row = pl.BlockSpec((None, count), lambda i: (i, 0))
    one = pl.BlockSpec((1,), lambda i: (0,))
    numbers = [jnp.full(1, rows, jnp.int32)] + ([] if top_p is None else [top_p])
    grid = next((g for g in GRIDS if rows <= g), GRIDS[-1] * pl.cdiv(rows, GRIDS[-1]))
    return pl.pallas_call(
        functools.partial(_filter, top_k=top_k, size=_size(count)),
        grid=(grid,),
        in_specs=[row, *[one] * len(numbers)],
        out_specs=row,
        out_shape=jax.ShapeDtypeStruct(x.shape, jnp.float32),
        compiler_params=_params(count),
        interpret=interpret,
    )(x, *numbers)


def _size(count: int) -> int:
    return max(32, 1 << (count - 1).bit_length())


def _params(count: int):
    return plgpu.CompilerParams(num_warps=min(16, max(1, _size(count) // NUMBERS)), num_stages=1)


def _search(x, weights, target, out, *, size: int):
    at = jnp.arange(size)
    real = at < x.shape[0]
    keys = to_keys(plgpu.load(x.at[at], mask=real, other=0.0))
    weight = plgpu.load(weights.at[at], mask=real, other=0)
    out[0] = _found(keys, weight, target[0])


def _filter(x, rows, *refs, top_k: int, size: int):
    *top_p, out = refs

    @pl.when(pl.program_id(0) < rows[0])
    def _():
        at = jnp.arange(size)
        real = at < x.shape[0]
        y = plgpu.load(x.at[at], mask=real, other=-jnp.inf)
        most, keys = jnp.max(y), to_keys(y)

        def above(y, least):
            below = y < least - ROUNDING * jnp.maximum(jnp.abs(most), jnp.abs(least))
            return jnp.where(below, -jnp.inf, y)

        if top_k:
            y = above(y, _found(keys, real.astype(jnp.int32), top_k))
        if top_p:
            weight = jnp.exp(y - most)
            mass = weight / jnp.sum(weight)
            least = _found(keys, mass, jnp.maximum(top_p[0][0], 1e-30))
            y = jnp.where(top_p[0][0] < 1.0, above(y, least), y)
        plgpu.store(out.at[at], y, mask=real)


def _found(keys, weight, wanted):
    """The largest of the keys' values for which the weights of all that aren't less come to what is wanted."""

    def bit(i, found):
        tried = found | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
        return jnp.where(jnp.sum(jnp.where(keys >= tried, weight, 0)) >= wanted, tried, found)

    return from_keys(jax.lax.fori_loop(0, 32, bit, jnp.uint32(0)))
