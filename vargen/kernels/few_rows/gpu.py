"""Products of few rows on NVIDIA GPUs (Pallas, Triton): a program per block of outputs.

Every program normalises all rows itself, which lie in the cache by then, and reads its own columns of the weights, a
block after another; those are all that comes from memory. One launch has no way to wait for the results of another
program, so that two products after one another are two launches.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.few_rows.reference import GATED
from vargen.kernels.norming import Part
from vargen.kernels.norming.gpu import modulation, told, whole
from vargen.kernels.step_attention.gpu import _dot

ROWS = 16  # that a product on tensor cores has at least
PROGRAMS = 132  # of which as many as an H100 has multiprocessors run at once
COLUMNS = (64, 32, 16)  # of a program: the most of which there are enough programs, else the fewest
DEPTH = (
    512  # bytes of a column of the weights that a program looks at together, of `ROWS`: no register is spilt
)
HELD = 200 * 2**10  # bytes of weights that a program holds at most, of the 227 KB that its multiprocessor has
BYTES = "few_rows_moving_{}_bytes"  # the scope it runs under: of modulations it reads some rows alone


@functools.partial(
    jax.jit, static_argnames=("act", "dtype", "interpret")
)  # layers that are alike are traced once
def few_rows(x, matrices, norm, onto, *, act: str, dtype, interpret: bool = False):
    """As `reference.few_rows`; between its roundings everything is float32."""
    args = (x, matrices, norm, onto)
    # Side by side, as what reads them may want them.
    sizes = [matrix.kernel.shape[1] for matrix in (matrices[:1] if act in GATED else matrices)]
    enough = (c for c in COLUMNS if sum(pl.cdiv(size, c) for size in sizes) >= PROGRAMS)
    columns = next(enough, COLUMNS[-1])
    (batch, n, size), rows = x.shape, x.shape[0] * x.shape[1]
    added = [] if onto is None else [onto.residual, *(part.values for part in _parts(None, onto))]
    out = jax.ShapeDtypeStruct((rows, sum(sizes)), jnp.result_type(dtype, *added))
    modulations = [part.values for part in _parts(norm, onto)]
    moved = [y for y in jax.tree.leaves(args) if not any(y is values for values in modulations)]
    moved = sum(y.size * y.dtype.itemsize for y in (*moved, out)) + sum(
        rows * values.shape[-1] * values.dtype.itemsize for values in modulations
    )
    # Twice the rows come in half the depth.
    high = max(ROWS, pl.next_power_of_2(rows))
    depth = min(DEPTH * ROWS // high // max(2, dtype.itemsize), max(ROWS, pl.next_power_of_2(size)))
    held = depth * columns * dtype.itemsize * len(matrices)
    stages = max(2, min(4 if dtype.itemsize < 4 else 2, HELD // held))
    with jax.named_scope(BYTES.format(moved)):
        by_rows = [x.reshape(rows, size)]
        if onto is not None:
            onto = dataclasses.replace(onto, residual=onto.residual.reshape(rows, -1))
            by_rows.append(onto.residual)
        leaves, tree = jax.tree.flatten((told(n, rows), by_rows[0], matrices, norm, onto))
        found = pl.pallas_call(
            functools.partial(
                _kernel, tree=tree, act=act, dtype=dtype, columns=columns, depth=depth, interpret=interpret
            ),
            grid=(sum(pl.cdiv(size, columns) for size in sizes),),
            in_specs=[of_rows(high, y) if any(y is one for one in by_rows) else whole(y) for y in leaves],
            out_specs=of_rows(high, out),
            out_shape=out,
            compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=stages),
            interpret=interpret,
            name="few_rows",
        )(*leaves)
    return jnp.split(found.reshape(batch, n, -1), np.cumsum(sizes)[:-1], axis=-1)


def _parts(norm, onto) -> list[Part]:
    found = [norm.scale, norm.shift] if norm is not None else []
    found += [onto.gate] if onto is not None else []
    return [part for part in found if part is not None]


def of_rows(high: int, y) -> pl.BlockSpec:
    """All of an array [rows, D], as if it had `high` rows."""
    return pl.BlockSpec((high, y.shape[1]), lambda i: (0, 0))


def _kernel(*refs, tree, act, dtype, columns, depth, interpret):
    *refs, out = refs
    sizes, x, matrices, norm, onto = jax.tree.unflatten(tree, refs)
    (high, size), program = x.shape, pl.program_id(0)
    row, n = jnp.arange(high), sizes[0]
    rows = row, row // n, row % n, row < sizes[1]
    stats = None if norm is None else _statistics(x, rows, norm, depth)

    def inputs(start):
        """[rows, depth] of the rows as the products take them."""
        index = start + jnp.arange(depth)
        y = _load(x, rows, index)
        if norm is not None:
            mean, scale = stats
            y = jnp.where(index < size, y - mean, 0.0) * scale
            for name, function in (("scale", jnp.multiply), ("bias", jnp.add)):
                if name in norm.own:
                    own = plgpu.load(norm.own[name].at[index], mask=index < size, other=0.0)
                    y = function(y, own.astype(jnp.float32)[None])
            if norm.scale is not None:
                y = y * (1.0 + modulation(norm.scale, rows, index)) + modulation(norm.shift, rows, index)
        return y.astype(dtype), index

    # Of matrices side by side each program has columns of one; of a gated activation's two those of both.
    asides = [[m] for m in matrices] if act in GATED else [matrices]
    there, column, offset = _place(asides[0], program, columns)

    def step(i, sums):
        y, index = inputs(i * depth)
        spot, inside = (index[:, None], column[None]), (index < size)[:, None]
        weights = [
            _chosen(there, [m.kernel for m in ms], spot, lambda own: inside & own[None]) for ms in asides
        ]
        return tuple(
            total + _dot(y, w.astype(dtype), interpret) for total, w in zip(sums, weights, strict=True)
        )

    empty = (jnp.zeros((high, columns), jnp.float32),) * len(asides)
    sums = jax.lax.fori_loop(0, pl.cdiv(size, depth), step, empty)
    sums = [finished(total, ms, column, there) for total, ms in zip(sums, asides, strict=True)]
    y = ACTIVATIONS[act](*sums)
    if onto is not None:
        y = y if onto.gate is None else y * modulation(onto.gate, rows, column)
        y = y + _load(onto.residual, rows, column)
    mask = rows[-1][:, None] & functools.reduce(jnp.logical_or, there)[None]
    plgpu.store(out.at[row[:, None], (offset + column)[None]], y.astype(out.dtype), mask=mask)


def _place(matrices, program, columns):
    """Of the columns of a program: for each matrix bool [columns], which are its; int [columns], which of it; and how
    many columns the matrices before it have."""
    if len(matrices) == 1:
        column = program * columns + jnp.arange(columns)
        return [column < matrices[0].kernel.shape[1]], column, 0
    there, column, offset, first, before = [], 0, 0, 0, 0
    for matrix in matrices:
        count, width = pl.cdiv(matrix.kernel.shape[1], columns), matrix.kernel.shape[1]
        own = (first <= program) & (program < first + count)
        at = (program - first) * columns + jnp.arange(columns)
        there.append(own & (at < width))
        column, offset = column + at * own.astype(jnp.int32), offset + before * own.astype(jnp.int32)
        first, before = first + count, before + width
    return there, column, offset


def _chosen(there, refs, spot, mask):
    """What lies at a spot of the one of some references whose columns are there."""
    found = None
    for own, ref in zip(there, refs, strict=True):
        y = plgpu.load(ref.at[spot], mask=mask(own), other=_zero(ref))
        found = y if found is None else jnp.where(mask(own), y, found)
    return found


def _zero(ref):
    return 0 if jnp.issubdtype(ref.dtype, jnp.integer) else 0.0


def _load(ref, rows, index):
    """float32 [rows, len(index)] of a reference [rows, D]; zeros for rows and channels that aren't there."""
    row, real = rows[0], rows[-1]
    mask = real[:, None] & (index < ref.shape[1])[None]
    return plgpu.load(ref.at[row[:, None], index[None]], mask=mask, other=0.0).astype(jnp.float32)


def _statistics(x, rows, norm, depth):
    """float32 [rows, 1], twice: what is taken from the rows, and what they are multiplied by."""
    size = x.shape[1]

    def over(function):
        """The mean over the channels of a function of them."""

        def step(i, total):
            index = i * depth + jnp.arange(depth)
            y = jnp.where(index < size, function(_load(x, rows, index)), 0.0)
            return total + jnp.sum(y, axis=1, keepdims=True)

        zero = jnp.zeros((len(rows[0]), 1), jnp.float32)
        return jax.lax.fori_loop(0, pl.cdiv(size, depth), step, zero) / size

    mean = over(lambda y: y) if norm.kind == "layer" else 0.0
    return mean, jax.lax.rsqrt(over(lambda y: (y - mean) * (y - mean)) + norm.eps)


def finished(total, matrices, column, there):
    """A product with the scales and the biases of its columns, of that of the matrices whose they are."""
    for name, function in (("scale", jnp.multiply), ("bias", jnp.add)):
        own = [(t, getattr(m, name)) for t, m in zip(there, matrices, strict=True)]
        own = [(t, vector) for t, vector in own if vector is not None]
        if own:
            y = _chosen(*zip(*own, strict=True), column, lambda t: t).astype(jnp.float32)
            # Those of a matrix without one stay.
            some = functools.reduce(jnp.logical_or, [t for t, _ in own])
            total = jnp.where(some[None], function(total, y[None]), total)
    return total


def _silu(x):
    return x / (1.0 + jnp.exp(-x))


def _erf(x):
    """Triton's language has none: a quotient of polynomials, within 4e-7 (Eigen's, of single precision)."""
    x = jnp.clip(x, -4.0, 4.0)
    above = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05)
    above += (-7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02)
    below = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03)
    below += (-1.42647390514189e-02,)

    def polynomial(coefficients):
        y = jnp.zeros_like(x)
        for coefficient in coefficients:
            y = y * x * x + coefficient
        return y

    return x * polynomial(above) / polynomial(below)


def _gelu(x):
    return 0.5 * x * (1.0 + _erf(x * math.sqrt(0.5)))


ACTIVATIONS = {
    "none": lambda x: x,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1.0 + jnp.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x))),
    "gelu_sigmoid": lambda x: x / (1.0 + jnp.exp(-1.702 * x)),
    "swiglu": lambda gate, up: _silu(gate) * up,
    "geglu": lambda gate, up: _gelu(gate) * up,
}
