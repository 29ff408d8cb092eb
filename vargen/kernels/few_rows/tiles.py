"""Products of hundreds of rows on NVIDIA GPUs (Pallas, Triton), with what is done with them behind: a program per tile.

How many rows there are is told when the program runs, and of neighbouring numbers the grid is the same: steps of
decoding that differ in their rows alone share one kernel, which is compiled once.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.few_rows.gpu import ACTIVATIONS, finished, modulation, told, whole
from vargen.kernels.few_rows.reference import Matrix, Onto
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
def product(x, matrix: Matrix, onto: Onto | None, *, act: str, interpret: bool = False) -> jax.Array:
    """As `reference.few_rows` of one matrix, without a norm, of x [B, N, I] in 16 bits with B N at most `MOST`; between
    its roundings everything is float32."""
    (batch, n, size), features = x.shape, matrix.kernel.shape[1]
    rows = batch * n
    blocks = next(b for b in BLOCKS if rows <= ROWS * b)
    enough = (c for c in COLUMNS if blocks * pl.cdiv(features, c) >= PROGRAMS)
    columns = next(enough, COLUMNS[-1])
    gate = None if onto is None else onto.gate
    operands = [x, matrix.kernel, matrix.scale, matrix.bias, None if onto is None else onto.residual]
    moved = sum(y.size * y.dtype.itemsize for y in operands if y is not None)
    moved += rows * features * x.dtype.itemsize
    moved += 0 if gate is None else batch * features * gate.values.dtype.itemsize
    with jax.named_scope(SCOPE.format(2 * rows * size * features, moved)):
        flat = x.reshape(rows, size)
        if onto is not None:
            onto = dataclasses.replace(onto, residual=onto.residual.reshape(rows, features))
        out = _tiled(told(n, rows), flat, matrix, onto, act, blocks, columns, interpret)
    return out.reshape(batch, n, features)


def _tiled(sizes, x, matrix, onto, act, blocks, columns, interpret):
    (rows, size), features = x.shape, matrix.kernel.shape[1]
    own = pl.BlockSpec((columns,), lambda i: (i // blocks,))
    tile = pl.BlockSpec((ROWS, columns), lambda i: (i % blocks, i // blocks))
    specs = [whole(sizes), pl.BlockSpec((ROWS, size), lambda i: (i % blocks, 0))]
    specs += [pl.BlockSpec((size, columns), lambda i: (0, i // blocks))]
    specs += [own for y in (matrix.scale, matrix.bias) if y is not None]
    specs += [] if onto is None else [tile, *map(whole, jax.tree.leaves(onto.gate))]
    leaves, tree = jax.tree.flatten((sizes, x, matrix, onto))
    return pl.pallas_call(
        functools.partial(_kernel, tree=tree, act=act, blocks=blocks, features=features, interpret=interpret),
        grid=(blocks * pl.cdiv(features, columns),),
        in_specs=specs,
        out_specs=tile,
        out_shape=jax.ShapeDtypeStruct((rows, features), x.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=4),
        interpret=interpret,
        name="product",
    )(*leaves)


def _kernel(*refs, tree, act, blocks, features, interpret):
    *refs, out = refs
    sizes, x, matrix, onto = jax.tree.unflatten(tree, refs)
    (size, columns), program = matrix.kernel.shape, pl.program_id(0)
    n, rows = sizes[0], sizes[1]
    # Those of one stretch of columns come after one another, and find the weights in the cache.
    first, here, own = (program % blocks) * ROWS, jnp.arange(ROWS), jnp.arange(columns)
    row, column = first + here, (program // blocks) * columns + own
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
