"""How the attention of CUDA GPUs is cut into blocks: their sizes, which rows of arrays they are, and what is there."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from vargen.kernels import static
from vargen.kernels.step_attention.spans import edges

# Queries and keys per block, warps and stages, by bytes per number and the largest head dimension: what an H100's
# registers hold (compiled for sm_90a, at most 120 bytes a thread are spilt) and, but for the gradients of heads above
# 128, the 99 KB of shared memory of smaller GPUs.
BLOCKS = {
    ("forward", 2): {64: (128, 64, 4, 3), 128: (128, 64, 8, 2), 256: (64, 32, 4, 2)},
    ("query", 2): {64: (64, 64, 4, 3), 128: (64, 64, 4, 2), 256: (64, 32, 8, 2)},
    ("key", 2): {64: (64, 64, 4, 3), 128: (64, 64, 4, 2), 256: (32, 64, 8, 2)},
    ("forward", 4): {64: (64, 32, 4, 2), 128: (32, 32, 4, 2), 256: (16, 16, 8, 2)},
    ("query", 4): {64: (64, 32, 4, 2), 128: (16, 32, 4, 2), 256: (16, 16, 8, 2)},
    ("key", 4): {64: (32, 32, 4, 2), 128: (32, 16, 4, 2), 256: (16, 16, 8, 2)},
}


def numbers(first, size: int):
    """int32 [size]: numbers of keys."""
    return first + jax.lax.broadcasted_iota(jnp.int32, (size,), 0)


@dataclasses.dataclass(frozen=True)
class Rows:
    """A block of rows, as a kernel reads and writes it: zeros for what arrays lack of it.

    Attributes:
      first: number of the first row.
      size: of the block.
      slice: where it lies in a reference; None of a reference that holds it alone.
      rows: how many the arrays have, None where all of the block are there.
      channels: likewise, of a block's `width`.
      width: channels of the block.
    """

    first: Any
    size: int
    slice: Any
    rows: int | None
    channels: int | None
    width: int

    def load(self, ref, head=None):
        """[size, width]; of [rows, heads, width] those of a head."""
        at = () if head is None else (head,)
        return _load(ref if self.slice is None else ref.at[self.slice, *at, :], self._mask())

    def load_stats(self, ref, head=None):
        """[size]; of [heads, rows] those of a head."""
        return _load(ref if self.slice is None else ref.at[head, self.slice], self._there())

    def store(self, ref, x):
        """Writes [size, width], in the reference's dtype."""
        plgpu.store(ref, x.astype(ref.dtype), mask=self._mask())

    def store_stats(self, ref, x):
        """Writes [size]."""
        plgpu.store(ref, x, mask=self._there())

    def _there(self):
        return None if self.rows is None else numbers(self.first, self.size) < self.rows

    def _mask(self):
        rows = self._there()
        if self.channels is None:
            return None if rows is None else jnp.broadcast_to(rows[:, None], (self.size, self.width))
        channels = jnp.broadcast_to((numbers(0, self.width) < self.channels)[None], (self.size, self.width))
        return channels if rows is None else channels & rows[:, None]


def _load(ref, mask):
    return plgpu.load(ref) if mask is None else plgpu.load(ref, mask=mask, other=jnp.zeros((), ref.dtype))


class Plan:
    """Sizes, blocks and block specifications of one kernel's call."""

    def __init__(self, kernel, low, high, q, k, interpret):
        n, m, dim = q.shape[1], k.shape[1], q.shape[3]
        self.width = max(16, 1 << (dim - 1).bit_length())  # powers of two alone
        q_block, k_block, self.num_warps, self.num_stages = blocks(kernel, self.width, q.dtype)
        shrink = lambda size, of: min(size, max(16, 1 << (of - 1).bit_length()))  # noqa: E731
        if kernel == "forward" and n % q_block and not n % (q_block // 2):
            q_block //= 2  # saves masks
        self.q_block, self.k_block = shrink(q_block, n), shrink(k_block, m)
        self.q_blocks, self.k_blocks = pl.cdiv(n, self.q_block), pl.cdiv(m, self.k_block)
        self.n, self.m = self.q_blocks * self.q_block, self.k_blocks * self.k_block
        self.queries_there, self.keys_there, self.channels = n, m, dim
        self.heads_per_group = q.shape[2] // k.shape[2]
        pad = ((0, 0), (0, self.n - n))
        self.low, self.high = (
            static.module(low).pad(x.reshape(-1, n), pad).astype(np.int32) for x in (low, high)
        )
        self.bounds = jnp.stack([self.low, self.high], axis=1)
        self.examples = self.bounds.shape[0]
        self.interpret = interpret
        self.has = [True] * 3  # which stretches of `_stretches` there are

    def call(self, kernel, **options):
        params = plgpu.CompilerParams(num_warps=self.num_warps, num_stages=self.num_stages)
        kernel = functools.partial(kernel, plan=self)
        return pl.pallas_call(kernel, compiler_params=params, interpret=self.interpret, **options)

    def edges(self, of_keys: bool):
        """int32 [1 or B, blocks, 4]: see `spans.edges`."""
        found = edges(self.low, self.high, self.q_block, self.k_block, self.k_blocks, of_keys=of_keys)
        if static.known(found):
            self.has = np.any(np.diff(found) > 0, axis=(0, 1)).tolist()
        return jnp.asarray(found)

    def queries_at(self, i, masked: bool = True, alone: bool = True) -> Rows:
        """The i-th block of queries, that may reach beyond the last where it is `masked`; in a reference `alone`."""
        return self._rows(i, self.q_block, self.queries_there, masked, alone)

    def keys_at(self, j, masked: bool = True, alone: bool = True) -> Rows:
        """Likewise of keys."""
        return self._rows(j, self.k_block, self.keys_there, masked, alone)

    def _rows(self, i, size, there, masked, alone):
        at, channels = i * size, None if self.channels == self.width else self.channels
        rows = there if masked and there % size else None
        return Rows(at, size, None if alone else pl.ds(at, size), rows, channels, self.width)

    # Block specifications: of grids (batch, query head, block of queries) ...

    def _example(self, b):
        return b if self.examples > 1 else 0

    def last_first(self, i):
        # The last queries see most keys: they start first, so that no multiprocessor ends long after the rest.
        return self.q_blocks - 1 - i

    def query_edges(self):
        return pl.BlockSpec((None, None, 4), lambda b, h, i: (self._example(b), self.last_first(i), 0))

    def query_spans(self):
        at = lambda b, h, i: (self._example(b), 0, self.last_first(i))  # noqa: E731
        return pl.BlockSpec((None, 2, self.q_block), at)

    def queries(self):
        shape = (None, self.q_block, None, self.width)
        return pl.BlockSpec(shape, lambda b, h, i: (b, self.last_first(i), h, 0))

    def stats(self):
        return pl.BlockSpec((None, None, self.q_block), lambda b, h, i: (b, h, self.last_first(i)))

    def all_keys(self):
        shape = (None, self.m, None, self.width)
        return pl.BlockSpec(shape, lambda b, h, i: (b, 0, h // self.heads_per_group, 0))

    # ... and of grids (batch, key head, block of keys), where the first keys are seen most.

    def key_edges(self):
        return pl.BlockSpec((None, None, 4), lambda b, g, j: (self._example(b), j, 0))

    def all_spans(self):
        return pl.BlockSpec((None, 2, self.n), lambda b, g, j: (self._example(b), 0, 0))

    def group_queries(self, repeat):
        return pl.BlockSpec((None, self.n, repeat, self.width), lambda b, g, j: (b, 0, g, 0))

    def group_stats(self, repeat):
        return pl.BlockSpec((None, repeat, self.n), lambda b, g, j: (b, g, 0))

    def keys(self):
        return pl.BlockSpec((None, self.k_block, None, self.width), lambda b, g, j: (b, j, g, 0))


def blocks(kernel: str, dim: int, dtype) -> tuple[int, int, int, int]:
    """Of BLOCKS: queries and keys per block, warps and stages of a kernel."""
    table = BLOCKS[kernel, min(jnp.dtype(dtype).itemsize, 4)]
    return table[min((d for d in table if dim <= d), default=256)]
