"""Norms of rows on NVIDIA GPUs (Pallas, Triton): a program per few rows, which holds them whole."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.norming.reference import Norming, Part

HELD = 4096  # numbers that a program holds, of whole rows
GRIDS = (16, 32, 128, 256)  # programs, where no more are needed; those whose rows aren't there end at once
BYTES = "norm_moving_{}_bytes"  # the scope it runs under: of modulations it reads some rows alone


@functools.partial(jax.jit, static_argnames="interpret")  # layers that are alike are traced once
def normed(x, norm: Norming, *, interpret: bool = False) -> jax.Array:
    """`norm(x)` of x [B, N, D]; between its roundings everything is float32."""
    (batch, n, size), rows = x.shape, x.shape[0] * x.shape[1]
    width = pl.next_power_of_2(size)
    high = max(1, HELD // width)
    needed = pl.cdiv(rows, high)
    parts = [part for part in (norm.scale, norm.shift) if part is not None]
    moved = (2 * x.size + len(parts) * batch * size) * x.dtype.itemsize
    with jax.named_scope(BYTES.format(moved)):
        # Which of a condition's vectors is told as well: the norms of a block share a kernel.
        leaves, tree = jax.tree.flatten((told(n, rows, *(part.index for part in parts)), norm))
        found = pl.pallas_call(
            functools.partial(_kernel, tree=tree, width=width),
            grid=(next((g for g in GRIDS if g >= needed), needed),),
            in_specs=[pl.BlockSpec((high, size), lambda i: (i, 0)), *map(whole, leaves)],
            out_specs=pl.BlockSpec((high, size), lambda i: (i, 0)),
            out_shape=jax.ShapeDtypeStruct((rows, size), x.dtype),
            compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
            interpret=interpret,
            name="normed",
        )(x.reshape(rows, size), *leaves)
    return found.reshape(x.shape)


def told(*numbers: int) -> jax.Array:
    """int32 [len(numbers)], such as how many rows there are: in the kernel they would make one of their own."""
    return jnp.array(numbers, jnp.int32)


def whole(y) -> pl.BlockSpec:
    """All of an array, for every program."""
    return pl.BlockSpec(y.shape, lambda i: (0,) * y.ndim)


def _kernel(x, *refs, tree, width):
    *refs, out = refs
    sizes, norm = jax.tree.unflatten(tree, refs)
    (high, size), n = x.shape, sizes[0]
    here, channel = jnp.arange(high), jnp.arange(width)
    row = pl.program_id(0) * high + here
    rows, inside = (row, row // n, row % n, row < sizes[1]), channel < size
    spot, mask = (here[:, None], channel[None]), rows[-1][:, None] & inside[None]
    y = plgpu.load(x.at[spot], mask=mask, other=0.0).astype(jnp.float32)
    if norm.kind == "layer":
        y = jnp.where(inside[None], y - jnp.sum(y, axis=1, keepdims=True) / size, 0.0)
    square = jnp.sum(y * y, axis=1, keepdims=True)
    if norm.kind == "unit":
        y = y / jnp.maximum(jnp.sqrt(square), norm.eps)
    else:
        y = y * jax.lax.rsqrt(square / size + norm.eps)
    for name, function in (("scale", jnp.multiply), ("bias", jnp.add)):
        if name in norm.own:
            own = plgpu.load(norm.own[name].at[channel], mask=inside, other=0.0)
            y = function(y, own.astype(jnp.float32)[None])
    if norm.scale is not None:
        scale, shift = (modulation(p, rows, channel, sizes[i]) for i, p in ((2, norm.scale), (3, norm.shift)))
        y = y * (1.0 + scale) + shift
    plgpu.store(out.at[spot], y.astype(out.dtype), mask=mask)


def modulation(part: Part, rows, index, which=None):
    """float32 [rows, len(index)] of what a condition modulates the rows by; `which` is its index, if that is told."""
    (examples, places, _, size), (_, example, place, real) = part.values.shape, rows
    example = example if examples > 1 else 0 * example
    place = place if places > 1 else 0 * place
    if part.at is not None:
        place = 0 * place + jnp.clip(part.at[...], 0, places - 1)
    spot = (
        example[:, None],
        place[:, None],
        jnp.full((1, 1), part.index if which is None else which),
        index[None],
    )
    mask = real[:, None] & (index < size)[None]
    return plgpu.load(part.values.at[spot], mask=mask, other=0.0).astype(jnp.float32)
