"""Products of hundreds of rows on NVIDIA GPUs (Pallas, Triton), with what is done with them behind: a program per tile.

How many rows there are is told when the program runs, and of neighbouring numbers the grid is the same: steps of
decoding that differ in their rows alone share one kernel, which is compiled once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.few_rows.gpu import ACTIVATIONS, finished
from vargen.kernels.few_rows.reference import Matrix, Onto
from vargen.kernels.norming.gpu import modulation, told, whole
from vargen.kernels.step_attention.gpu import _dot

ROWS = 64  # of a tile
BLOCKS = (1, 2, 8, 16)  # of rows, in a grid; a program whose rows aren't there ends at once
MOST = ROWS * BLOCKS[-1]
COLUMNS = (64, 32, 16)  # of a tile: the most of which there are enough programs, else the fewest
PROGRAMS = 128  # enough for the 132 multiprocessors of an H100
DEPTH = 64  # of the weights that a program looks at together
# The scope it runs under: its shapes don't tell how many programs read an operand, nor that it is a product.
SCOPE = "product_of_{}_flops_moving_{}_bytes"


@functools.partial(jax.jit, static_argnames=("act", "interpret"))  # layers that are alike are traced once
def products(
    x, matrices: Sequence[Matrix], onto: Onto | None, *, act: str, interpret: bool = False
) -> list[jax.Array]:
    """As `reference.few_rows` without a norm and without gated activations, of x [B, N, I] in 16 bits with B N at most
    `MOST`; between its roundings everything is float32."""
    (batch, n, size), widths = x.shape, [matrix.kernel.shape[1] for matrix in matrices]
    rows = batch * n
    blocks = next(b for b in BLOCKS if rows <= ROWS * b)
    enough = (c for c in COLUMNS if blocks * sum(pl.cdiv(width, c) for width in widths) >= PROGRAMS)
    columns = next(enough, COLUMNS[-1])
    gate = None if onto is None else onto.gate
    operands = [x, *jax.tree.leaves(matrices), None if onto is None else onto.residual]
    moved = sum(y.size * y.dtype.itemsize for y in operands if y is not None)
    moved += rows * sum(widths) * x.dtype.itemsize
    moved += 0 if gate is None else batch * widths[0] * gate.values.dtype.itemsize
    with jax.named_scope(SCOPE.format(2 * rows * size * sum(widths), moved)):
        flat = x.reshape(rows, size)
        if onto is not None:
            onto = dataclasses.replace(onto, residual=onto.residual.reshape(rows, widths[0]))
        outs = _tiled(told(n, rows), flat, list(matrices), onto, act, blocks, columns, interpret)
    return [out.reshape(batch, n, -1) for out in outs]


def _tiled(sizes, x, matrices, onto, act, blocks, columns, interpret):
    rows, size = x.shape
    counts = [pl.cdiv(matrix.kernel.shape[1], columns) for matrix in matrices]
    firsts = [sum(counts[:i]) for i in range(len(counts))]
    specs, tiles = [whole(sizes), pl.BlockSpec((ROWS, size), lambda i: (i % blocks, 0))], []
    for matrix, first, count in zip(matrices, firsts, counts, strict=True):
        # Programs of another matrix don't look.
        at = functools.partial(lambda i, a, b: jnp.clip(i // blocks - a, 0, b - 1), a=first, b=count)
        own = pl.BlockSpec((columns,), lambda i, at=at: (at(i),))
        specs += [pl.BlockSpec((size, columns), lambda i, at=at: (0, at(i)))]
        specs += [own for y in (matrix.scale, matrix.bias) if y is not None]
        tiles += [pl.BlockSpec((ROWS, columns), lambda i, at=at: (i % blocks, at(i)))]
    specs += [] if onto is None else [*tiles, *map(whole, jax.tree.leaves(onto.gate))]
    leaves, tree = jax.tree.flatten((sizes, x, matrices, onto))
    kernel = functools.partial(_kernel, tree=tree, act=act, blocks=blocks, interpret=interpret)
    places = [(first, matrix.kernel.shape[1]) for first, matrix in zip(firsts, matrices, strict=True)]
    return pl.pallas_call(
        functools.partial(kernel, places=places),
        grid=(blocks * sum(counts),),
        in_specs=specs,
        out_specs=tiles,
        out_shape=[jax.ShapeDtypeStruct((rows, matrix.kernel.shape[1]), x.dtype) for matrix in matrices],
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=4),
        interpret=interpret,
        name="product",
    )(*leaves)


def _kernel(*refs, tree, places, act, blocks, interpret):
    refs, outs = refs[: -len(places)], refs[-len(places) :]
    sizes, x, matrices, onto = jax.tree.unflatten(tree, refs)
    # Those of one stretch of columns come after one another, and find the weights in the cache.
    rows, stretch = pl.program_id(0) % blocks, pl.program_id(0) // blocks
    for matrix, (first, features), out in zip(matrices, places, outs, strict=True):
        columns = matrix.kernel.shape[1]
        tile = functools.partial(
            _tile,
            sizes,
            x,
            matrix,
            onto,
            out,
            rows * ROWS,
            (stretch - first) * columns,
            features,
            act,
            interpret,
        )
        if len(places) == 1:
            tile()
        else:
            pl.when((first <= stretch) & (stretch < first + pl.cdiv(features, columns)))(tile)


def _tile(sizes, x, matrix, onto, out, first, begin, features, act, interpret):
    (size, columns), (n, rows) = matrix.kernel.shape, (sizes[0], sizes[1])
    here, own = jnp.arange(ROWS), jnp.arange(columns)
    row, column = first + here, begin + own
    real, there = row < rows, column < features

    def load(ref, at, mask):
        return plgpu.load(ref.at[at], mask=mask, other=jnp.zeros((), ref.dtype))

    def step(i, total):
        index = i * DEPTH + jnp.arange(DEPTH)
        inside = index < size
        y = load(x, (here[:, None], index[None]), real[:, None] & inside[None])
        w = load(matrix.kernel, (index[:, None], own[None]), inside[:, None] & there[None])
        return total + _dot(y, w.astype(y.dtype), interpret)

    count = pl.cdiv(size, DEPTH) * (first < rows).astype(jnp.int32)
    total = jax.lax.fori_loop(0, count, step, jnp.zeros((ROWS, columns), jnp.float32))
    y = ACTIVATIONS[act](finished(total, [matrix], own, [there]))
    spot, mask = (here[:, None], own[None]), real[:, None] & there[None]
    if onto is not None:
        if onto.gate is not None:
            y = y * modulation(onto.gate, (row, row // n, row % n, real), column)
        y = y + load(onto.residual, spot, mask).astype(jnp.float32)
    plgpu.store(out.at[spot], y.astype(out.dtype), mask=mask)
