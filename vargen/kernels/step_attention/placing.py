"""New keys and values put into their caches before attention of more than a few queries, for CUDA GPUs, in Pallas on
Triton: one launch for both, with the norms of queries and keys."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.step_attention import gpu
from vargen.kernels.step_attention.few import normed, power

ROWS = 32  # of a program, of one head
BYTES = "placing_moving_{}_bytes"  # the scope it runs under: of the caches it writes the new rows alone
GRIDS = (1, 2, 8)  # programs for an example's rows, where no more are needed; those without rows end at once


@functools.partial(jax.jit, static_argnames="interpret")  # layers that are alike are traced once
def placed(q, new_k, new_v, k, v, start, norms=None, *, interpret: bool = False):
    """As `reference.placed`; the caches are written in place. How many rows there are is told when the program runs:
    steps of decoding share a kernel."""
    (batch, n, heads, _), (m, groups) = q.shape, k.shape[1:3]
    made = [] if norms is None else [q]  # without norms queries stay as they are
    own, tree = jax.tree.flatten(norms)
    needed = pl.cdiv(n, ROWS)
    blocks = next((g for g in GRIDS if g >= needed), needed)
    numbers = jnp.stack([jnp.asarray(start, jnp.int32), jnp.int32(n)])
    arrays = [*made, new_k, new_v, k, v]
    flat = [x.reshape(-1, *x.shape[2:]) for x in arrays]
    given, caches = [*flat[: len(made)], *flat[-2:]], len(flat) - 1
    whole = pl.BlockSpec()

    def rows(x):
        """All of them, as if there were as many as programs are for."""
        return pl.BlockSpec((batch * blocks * ROWS, *x.shape[-2:]), lambda b, i, h: (0, 0, 0))

    moved = 2 * sum(x.size * x.dtype.itemsize for x in (*made, new_k, new_v))
    with jax.named_scope(BYTES.format(moved)):
        found = pl.pallas_call(
            functools.partial(_kernel, norms=tree, queries=len(made), repeat=heads // groups, length=m),
            grid=(batch, blocks, heads if made else groups),
            in_specs=[whole, *map(rows, flat[:-2]), *[whole] * (2 + len(own))],
            out_specs=[*map(rows, made), whole, whole],
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in given],
            input_output_aliases={caches: len(made), caches + 1: len(made) + 1},
            compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
            interpret=interpret,
            name="placed",
        )(numbers, *flat, *own)
    q, k, v = (x.reshape(y.shape) for x, y in zip([q, *found][-3:], (q, k, v), strict=True))
    return q, k, v


def attend_cached(
    q, new_k, new_v, k, v, start, low, high, norms=None, *, scale: float, interpret: bool = False
):
    """As `reference.attend_cached`, in two launches."""
    q, k, v = placed(q, new_k, new_v, k, v, start, norms, interpret=interpret)
    return *gpu.attend(q, k, v, low, high, scale=scale, interpret=interpret), k, v


def _kernel(numbers, *refs, norms, queries, repeat, length):
    # [q], new k, new v, and the caches as they come; the norms'; [q], and the caches as they go.
    (*asked, keys, values, _, _), rest = refs[: queries + 4], refs[queries + 4 :]
    own, (*out, k, v) = jax.tree.unflatten(norms, rest[: norms.num_leaves]), rest[norms.num_leaves :]
    start, n, dim = numbers[0], numbers[1], keys.shape[2]
    example, head = pl.program_id(0), pl.program_id(2)
    row, channel = pl.program_id(1) * ROWS + jnp.arange(ROWS), jnp.arange(power(dim))
    mask = (row < n)[:, None] & (channel < dim)[None]

    def spot(first, head):
        return (first + row)[:, None], jnp.full((1, 1), head), channel[None]

    def through(ref, norm, head):
        y = plgpu.load(ref.at[spot(example * n, head)], mask=mask, other=0.0)
        return y if norm is None else normed(y, norm, head, channel, dim)

    if queries:
        y = through(asked[0], own[0], head)
        plgpu.store(out[0].at[spot(example * n, head)], y, mask=mask)

    def put():
        group = head // repeat if queries else head
        for cache, ref, norm in ((k, keys, own[1] if queries else None), (v, values, None)):
            y = through(ref, norm, group)
            plgpu.store(cache.at[spot(example * length + start, group)], y, mask=mask)

    if queries and repeat > 1:
        pl.when(head % repeat == 0)(put)
    else:
        put()
