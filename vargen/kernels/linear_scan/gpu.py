"""The linear scan on NVIDIA GPUs (Pallas, Triton): a program per block of channels walks through time."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels.linear_scan import planes, xla

# Channels of a program (one warp, 16 bytes a thread) and the rows that it loads before it uses the first:
# 8 KB of a and b in flight. An H100 needs about 18 KB per multiprocessor, so 8 programs on each are ample.
CHANNELS, UNROLL = 128, 8
PROGRAMS = 8 * 132
SMALLEST = 64  # rows in a chunk of time, at least


def scan(a, b, initial, *, reverse: bool, late: bool, interpret: bool = False) -> jax.Array:
    """See xla.py for the form; b: [rows, N, channels], float32, bfloat16 or complex64.

    With half of PROGRAMS or more, each of a, b and h crosses memory once (complex numbers once more, to be
    split). With fewer the memory would wait, and time is cut: a first pass finds each chunk's decay and end,
    a second one scans each from what it is handed: a and b are read twice.
    """
    rows, n, channels = b.shape
    width = min(CHANNELS, pl.next_power_of_2(channels))
    blocks = pl.cdiv(channels, width)
    chunks = max(1, min(PROGRAMS // (rows * blocks), n // SMALLEST))
    chunk = pl.cdiv(pl.cdiv(n, chunks), UNROLL) * UNROLL
    chunks = pl.cdiv(n, chunk)

    parts = 2 if jnp.iscomplexobj(b) else 1
    ends = [jax.ShapeDtypeStruct((rows, chunks, channels), jnp.float32)] * parts
    like = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in planes.split(b)]
    options = dict(parts=parts, n=n, chunk=chunk, width=width, channels=channels, reverse=reverse, late=late)

    def block(x):
        wide, varies = x.shape[2] == channels, x.shape[0] > 1

        def index(p, _):
            return p // blocks if varies else 0, 0, p % blocks if wide else 0

        return pl.BlockSpec((None, x.shape[1], width if wide else 1), index)

    carry = pl.BlockSpec((None, None, width), lambda p, part: (p // blocks, part, p % blocks))

    def call(kernel, out_shape, out_spec, *carries):
        carries = [part for x in carries for part in planes.split(x)]
        arrays = [part for x in (a, b) for part in planes.split(x)]
        return pl.pallas_call(
            functools.partial(kernel, **options),
            grid=(rows * blocks, chunks),
            in_specs=[block(x) for x in arrays] + [carry] * len(carries),
            out_specs=[out_spec] * len(out_shape),
            out_shape=out_shape,
            compiler_params=plgpu.CompilerParams(num_warps=1, num_stages=1),
            interpret=interpret,
            name="linear_scan",
        )(*arrays, *carries)

    handed = initial[:, None]
    if chunks > 1:
        found = call(_summary, [*ends, *ends], carry)
        decay, end = planes.join(found[:parts]), planes.join(found[parts:])
        end = xla.associative(decay, end, initial, reverse=False, late=False)
        handed = xla.shift(end, handed, axis=1, reverse=False)
    return planes.join(call(_scan, like, block(b), handed))


def _scan(*refs, parts, late, **options):
    a, b, handed, out = (refs[i : i + parts] for i in range(0, 4 * parts, parts))

    def step(carry, a, b, t, mask):
        h = planes.add(b, carry if late else planes.multiply(a, carry))
        for ref, x in zip(out, h, strict=True):
            plgpu.store(ref.at[t, :], x.astype(ref.dtype), mask=mask)
        return planes.multiply(a, h) if late else h

    inside = _inside(**options)
    _walk(step, a, b, tuple(plgpu.load(x, mask=inside, other=0.0) for x in handed), **options)


def _summary(*refs, parts, late, **options):
    a, b, decay, end = (refs[i : i + parts] for i in range(0, 4 * parts, parts))

    def step(state, a, b, t, mask):
        decay, end = state
        end = planes.multiply(a, planes.add(end, b)) if late else planes.add(planes.multiply(a, end), b)
        return planes.multiply(a, decay), end

    zero = tuple(jnp.zeros(options["width"], jnp.float32) for _ in range(parts))
    found = _walk(step, a, b, (planes.one(zero), zero), **options)
    for refs, values in zip((decay, end), found, strict=True):
        for ref, x in zip(refs, values, strict=True):
            plgpu.store(ref, x, mask=_inside(**options))


def _inside(*, width, channels, **_):
    """Which of this program's channels exist."""
    block = pl.program_id(0) % pl.cdiv(channels, width)
    return block * width + jnp.arange(width) < channels


def _walk(step, a, b, state, *, n, chunk, width, channels, reverse):
    """step(state, a_t, b_t, t, mask) over the rows of this program's chunk."""
    inside, start = _inside(width=width, channels=channels), pl.program_id(1) * chunk

    def load(ref, t, mask):
        # One row or one channel is what all of them share.
        ref = ref.at[jnp.minimum(t, ref.shape[0] - 1), :]
        x = plgpu.load(ref) if ref.shape[-1] == 1 else plgpu.load(ref, mask=mask, other=0.0)
        return x.astype(jnp.float32)

    def body(i, state):
        first, rows = start + i * UNROLL, []
        for j in range(UNROLL):
            # Rows past the end come last: no one is handed what is computed there.
            valid = first + j < n
            t = jnp.where(valid, n - 1 - first - j if reverse else first + j, 0)
            mask = inside & valid
            values = [tuple(load(ref, t, mask) for ref in refs) for refs in (a, b)]
            rows.append((*values, t, mask))
        for row in rows:
            state = step(state, *row)
        return state

    return jax.lax.fori_loop(0, chunk // UNROLL, body, state)
