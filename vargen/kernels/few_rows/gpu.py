"""Products of few rows on NVIDIA GPUs (Pallas, Triton): a program per block of outputs.

Every program normalises all rows itself, which lie in the cache by then, and reads its own columns of the weights, a
block after another; those are all that comes from memory. One launch has no way to wait for the results of another
program, so that two products after one another are two launches.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.few_rows import reference
from vargen.kernels.few_rows.reference import GATED
from vargen.kernels.norming import Part
from vargen.kernels.step_attention.gpu import _dot

ROWS = 16  # that a product on tensor cores has at least
PROGRAMS = 132  # of which as many as an H100 has multiprocessors run at once
COLUMNS = (64, 32, 16)  # of a program: the most of which there are enough programs, else the fewest
DEPTH = (
    512  # bytes of a column of the weights that a program looks at together, of `ROWS`: no register is spilt
)
BYTES = "few_rows_moving_{}_bytes"  # the scope it runs under: of modulations it reads some rows alone


@functools.partial(
    jax.jit, static_argnames=("act", "dtype", "interpret")
)  # layers that are alike are traced once
def few_rows(x, matrices, norm, onto, *, act: str, dtype, interpret: bool = False):
    """As `reference.few_rows`; between its roundings everything is float32."""
    args = (x, matrices, norm, onto)
    outs = jax.eval_shape(functools.partial(reference.few_rows, act=act, dtype=dtype), *args)
    # Side by side, as what reads them may want them.
    sizes = [out.shape[-1] for out in outs]
    out = jax.ShapeDtypeStruct((*x.shape[:-1], sum(sizes)), outs[0].dtype)
    enough = (c for c in COLUMNS if sum(pl.cdiv(size, c) for size in sizes) >= PROGRAMS)
    columns = next(enough, COLUMNS[-1])
    leaves, tree = jax.tree.flatten(args)
    modulations = [part.values for part in _parts(norm, onto)]
    moved = [y for y in leaves if not any(y is values for values in modulations)]
    moved = sum(y.size * y.dtype.itemsize for y in (*moved, out)) + sum(
        x.shape[0] * x.shape[1] * values.shape[-1] * values.dtype.itemsize for values in modulations
    )
    with jax.named_scope(BYTES.format(moved)):
        found = pl.pallas_call(
            functools.partial(_kernel, tree=tree, act=act, dtype=dtype, columns=columns, interpret=interpret),
            grid=(sum(pl.cdiv(size, columns) for size in sizes),),
            out_shape=out,
            compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=4 if dtype.itemsize < 4 else 2),
            interpret=interpret,
            name="few_rows",
        )(*leaves)
    return jnp.split(found, np.cumsum(sizes)[:-1], axis=-1)


def _parts(norm, onto) -> list[Part]:
    found = [norm.scale, norm.shift] if norm is not None else []
    found += [onto.gate] if onto is not None else []
    return [part for part in found if part is not None]


def _kernel(*refs, tree, act, dtype, columns, interpret):
    *refs, out = refs
    x, matrices, norm, onto = jax.tree.unflatten(tree, refs)
    (batch, n, size), program = x.shape, pl.program_id(0)
    row = jnp.arange(max(ROWS, pl.next_power_of_2(batch * n)))
    rows = row // n, row % n, row < batch * n
    # Twice the rows come in half the depth.
    depth = min(DEPTH * ROWS // len(row) // max(2, dtype.itemsize), max(ROWS, pl.next_power_of_2(size)))
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
                y = y * (1.0 + _modulation(norm.scale, rows, index)) + _modulation(norm.shift, rows, index)
        return y.astype(dtype), index

    def write(first, alike, offset):
        """The columns of this program of matrices whose first program is `first`."""
        column = (program - first) * columns + jnp.arange(columns)
        there = column < alike[0].kernel.shape[1]

        def step(i, sums):
            y, index = inputs(i * depth)
            spot, mask = (index[:, None], column[None]), (index < size)[:, None] & there[None]
            weights = [plgpu.load(m.kernel.at[spot], mask=mask, other=_zero(m.kernel)) for m in alike]
            return tuple(
                total + _dot(y, w.astype(dtype), interpret) for total, w in zip(sums, weights, strict=True)
            )

        empty = (jnp.zeros((len(row), columns), jnp.float32),) * len(alike)
        sums = jax.lax.fori_loop(0, pl.cdiv(size, depth), step, empty)
        sums = [_finished(total, m, column, there) for total, m in zip(sums, alike, strict=True)]
        y = ACTIVATIONS[act](*sums)
        if onto is not None:
            y = y if onto.gate is None else y * _modulation(onto.gate, rows, column)
            y = y + _load(onto.residual, rows, column)
        example, place, real = rows
        spot = example[:, None], place[:, None], (offset + column)[None]
        plgpu.store(out.at[spot], y.astype(out.dtype), mask=real[:, None] & there[None])

    if len(matrices) == 1 or act in GATED:
        return write(0, matrices, 0)
    first = offset = 0
    for matrix in matrices:
        last = first + pl.cdiv(matrix.kernel.shape[1], columns)
        pl.when((first <= program) & (program < last))(functools.partial(write, first, [matrix], offset))
        first, offset = last, offset + matrix.kernel.shape[1]


def _zero(ref):
    return 0 if jnp.issubdtype(ref.dtype, jnp.integer) else 0.0


def _load(ref, rows, index):
    """float32 [rows, len(index)] of a reference [B, N, D]; zeros for rows and channels that aren't there."""
    example, place, real = rows
    mask = real[:, None] & (index < ref.shape[2])[None]
    spot = example[:, None], place[:, None], index[None]
    return plgpu.load(ref.at[spot], mask=mask, other=0.0).astype(jnp.float32)


def _modulation(part: Part, rows, index):
    """float32 [rows, len(index)] of what a condition modulates the rows by."""
    (examples, places, _, size), (example, place, real) = part.values.shape, rows
    example = example if examples > 1 else 0 * example
    place = place if places > 1 else 0 * place
    if part.at is not None:
        place = 0 * place + jnp.clip(part.at[...], 0, places - 1)
    spot = example[:, None], place[:, None], jnp.full((1, 1), part.index), index[None]
    mask = real[:, None] & (index < size)[None]
    return plgpu.load(part.values.at[spot], mask=mask, other=0.0).astype(jnp.float32)


def _statistics(x, rows, norm, depth):
    """float32 [rows, 1], twice: what is taken from the rows, and what they are multiplied by."""
    size = x.shape[2]

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


def _finished(total, matrix, column, there):
    """A product with the scales and the bias of its columns."""
    for vector, function in ((matrix.scale, jnp.multiply), (matrix.bias, jnp.add)):
        if vector is not None:
            y = plgpu.load(vector.at[column], mask=there, other=0.0).astype(jnp.float32)
            total = function(total, y[None])
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
