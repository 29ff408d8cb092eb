"""The linear scan on TPU: one pass over blocks of time, the carry in VMEM, doubling inside a register tile."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vargen.kernels.linear_scan import planes

# Rows and channels of a block, at most: 512 KB in float32, so that a, b and h fit in VMEM twice, complex too.
ROWS, CHANNELS = 256, 512


def scan(a, b, initial, *, reverse: bool, late: bool, interpret: bool = False) -> jax.Array:
    """See xla.py for the form; b: [rows, N, channels], float32, bfloat16 or complex64.

    a, b and h cross HBM once each (complex numbers once more, to be split into real and imaginary parts).
    Reversed scans walk the blocks, and the tiles in them, from the end.
    """
    rows, n, channels = b.shape
    # A tile is one register deep: 8 rows of 32 bits or 16 of 16.
    tile = 8 if b.dtype.itemsize > 2 else 16
    length, width = min(ROWS, pl.cdiv(n, tile) * tile), min(CHANNELS, channels)
    blocks = pl.cdiv(n, length)
    grid = (rows, pl.cdiv(channels, width), blocks)

    def spec(x):
        full = [size > 1 for size in x.shape]
        shape = (None, length if x.shape[1] == n > 1 else 1, width if full[2] else 1)

        def index(r, c, t):
            t = blocks - 1 - t if reverse else t
            return r if full[0] else 0, t if full[1] else 0, c if full[2] else 0

        return pl.BlockSpec(shape, index)

    a, b, initial = planes.split(a), planes.split(b), planes.split(initial[:, None])
    parts = len(b)
    kernel = functools.partial(_kernel, parts=parts, n=n, tile=tile, reverse=reverse, late=late)
    h = pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=[spec(x) for x in (*a, *b, *initial)],
        out_specs=[spec(x) for x in b],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in b],
        scratch_shapes=[pltpu.VMEM((1, width), jnp.float32)] * parts,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
        name="linear_scan",
    )(*a, *b, *initial)
    return planes.join(h)


def _kernel(*refs, parts, n, tile, reverse, late):
    a, b, initial, out, carry = (refs[i : i + parts] for i in range(0, 5 * parts, parts))
    length, width = out[0].shape
    block = pl.program_id(2)
    start = (pl.num_programs(2) - 1 - block if reverse else block) * length
    row = jax.lax.broadcasted_iota(jnp.int32, (tile, width), 0)
    # A reversed scan meets the rows past the end first: there h is handed through.
    ragged = reverse and n % length

    @pl.when(block == 0)
    def _():
        for c, x in zip(carry, initial, strict=True):
            c[...] = x[...]

    def read(ref, at):
        x = ref[...] if ref.shape[0] == 1 else ref[pl.ds(at, tile), :]
        return jnp.broadcast_to(x.astype(jnp.float32), (tile, width))

    def shifted(x, by, fill):
        rolled = tuple(pltpu.roll(p, tile - by if reverse else by, 0) for p in x)
        return planes.where(row < tile - by if reverse else row >= by, rolled, fill)

    def body(i, carry):
        at = pl.multiple_of((length // tile - 1 - i if reverse else i) * tile, tile)
        decay, h = (tuple(read(x, at) for x in refs) for refs in (a, b))
        one, zero = planes.one(decay), tuple(jnp.zeros_like(x) for x in h)
        if ragged:
            inside = start + at + row < n
            decay, h = planes.where(inside, decay, one), planes.where(inside, h, zero)
        given = decay
        if late:
            decay = shifted(decay, 1, one)
        by = 1
        while by < tile:
            h = planes.add(h, planes.multiply(decay, shifted(h, by, zero)))
            decay = planes.multiply(decay, shifted(decay, by, one))
            by *= 2
        h = planes.add(h, planes.multiply(decay, carry))
        for ref, x in zip(out, h, strict=True):
            ref[pl.ds(at, tile), :] = x.astype(ref.dtype)
        h = planes.multiply(given, h) if late else h
        return tuple(x[:1] if reverse else x[tile - 1 :] for x in h)

    last = jax.lax.fori_loop(0, length // tile, body, tuple(c[...] for c in carry))
    for c, x in zip(carry, last, strict=True):
        c[...] = x
