"""Axial attention: along one axis of the grid at a time (Axial Transformer, arXiv 1912.12180)."""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.layers import Dense
from vargen.layout import Layout
from vargen.limits import COUNT, check_heads
from vargen.mixers.paths import is_raster, one_level
from vargen.mixers.primitives import step_attention
from vargen.mixers.rollback import not_taken_back
from vargen.slots import Grid


class Axial(nn.Module):
    """Attention along rows and columns, bidirectional or with the full joint factorisation in raster order.

    Bidirectional: the sum of one attention along each axis; the condition's rows are keys of every line, and
    see one another. Causal (section 3.2): masked attention along a row, plus the context of all rows above:
    unmasked attention along rows, then masked attention along columns, shifted down by one row. Masking and
    shifting leave out nothing that is earlier. In decoding the context of a row is computed once, when the
    row above is finished (section 3.3's semi-parallel sampling).

    Attributes:
      grid: the slots: one level.
      width: D, size of input and output.
      heads: H.
      causal: the raster order's form; else bidirectional.
      out_bias: whether the projections out have biases.
      kernel_init, out_init: kernel initialisers.
      dtype: compute dtype.
    """

    grid: Grid
    width: int
    heads: Annotated[int, COUNT]
    kernel_init: Any
    out_init: Any
    causal: bool = True
    out_bias: bool = True
    dtype: Any = jnp.float32

    keeps_rows = False
    reads_ahead = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the grid's axes: ([frames,] rows, columns)."""
        frames = () if self.grid.frames == 1 else (self.grid.frames,)
        return frames + self.grid.levels[0]

    def check(self, layout) -> None:
        """Raises ValueError where the rows aren't the grid's, in the sequence or the visibility needed."""
        check_heads(self.heads, self.width)
        one_level("axial", self.grid)
        not_taken_back("axial", layout)
        if not self.causal:
            if not layout.everyone:
                raise ValueError("mixer axial: causal=False needs a feed in which all slots see one another")
            return
        if len(self.shape) != 2 or not is_raster(layout, self.grid):
            raise ValueError(
                "mixer axial: needs the order raster over one frame, and a feed whose rows see earlier steps"
            )

    def init_cache(self, batch: int, length: int) -> dict[str, jax.Array]:
        """The current row's inputs, keys and values; finished rows' column keys and values; the context above."""
        height, width = self.shape
        row, heads = (batch, width, self.width), (self.heads, self.width // self.heads)
        shapes = dict(row=row, above=row)
        shapes |= dict(key=(batch, width, *heads), value=(batch, width, *heads))
        shapes |= {f"column_{n}": (batch, height, width, *heads) for n in ("key", "value")}
        return {name: jnp.zeros(shape, self.dtype) for name, shape in shapes.items()}

    def setup(self):
        names = ["row", "context_row", "context_column"]
        if not self.causal:
            names = [f"axis_{i}" for i in range(len(self.shape))]
        args = self.width, self.heads, self.kernel_init, self.out_init, self.out_bias, self.dtype
        self.lines = {name: Line(*args) for name in names}

    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """[B, N, D] -> [B, N, D] and the cache (None in the parallel form), which takes rows one after the other."""
        if not self.causal:
            return self._bidirectional(x), None
        if cache is not None:
            if x.shape[1] == 1:
                return self._next(x, layout.start, cache)
            return self._several(x, layout.start, cache)
        height, width = self.shape
        batch, n = x.shape[:2]
        x = jnp.pad(x, ((0, 0), (0, height * width - n), (0, 0))).reshape(batch, height, width, -1)
        y = self.lines["row"](x.reshape(batch * height, width, -1), np.arange(width)).reshape(x.shape)
        context = self.lines["context_row"](x.reshape(batch * height, width, -1), np.zeros(width, np.int32))
        columns = context.reshape(x.shape).swapaxes(1, 2).reshape(batch * width, height, -1)
        columns = self.lines["context_column"](columns, np.arange(height))
        above = columns.reshape(batch, width, height, -1).swapaxes(1, 2)[:, :-1]
        y = y + jnp.pad(above, ((0, 0), (1, 0), (0, 0), (0, 0)))
        return y.reshape(batch, height * width, -1)[:, :n], None

    def _bidirectional(self, x):
        shape = self.shape
        prefix = x.shape[1] - np.prod(shape)
        if prefix < 0:  # initialisation with a single row: any shape has all the parameters
            prefix, shape = 0, (1,) * (len(shape) - 1) + (x.shape[1],)
        front, y = x[:, :prefix], 0
        cells = x[:, prefix:].reshape(x.shape[0], *shape, -1)
        for axis, line in enumerate(self.lines.values(), start=1):
            moved = jnp.moveaxis(cells, axis, -2)
            lines = moved.reshape(-1, *moved.shape[-2:])
            steps = np.zeros(lines.shape[1], np.int32)
            out = line(lines, steps, front).reshape(moved.shape)
            out = jnp.moveaxis(out, -2, axis).reshape(x[:, prefix:].shape)
            if prefix:
                out = jnp.concatenate([line(front, np.zeros(prefix, np.int32)), out], axis=1)
            y = y + out
        return y

    def _several(self, x, start, cache):
        """Given rows, before the first that is drawn."""

        def one(cache, row):
            y, cache = self._next(row[0][:, None], row[1], cache)
            return cache, y[:, 0]

        cache, y = jax.lax.scan(one, cache, (x.swapaxes(0, 1), start + jnp.arange(x.shape[1])))
        return y.swapaxes(0, 1), cache

    def _next(self, x, start, cache):
        height, width = self.shape
        batch = len(x)
        row, column = start // width, start % width
        line = self.lines["row"]
        q, k, v = line.project(x)
        cache = dict(cache, row=_put(cache["row"], x, column))
        cache |= {name: _put(cache[name], new, column) for name, new in (("key", k), ("value", v))}
        at = jnp.asarray(column).reshape(1)
        y = step_attention(q, cache["key"], cache["value"], at, np.arange(width), steps_are_sorted=True)
        y = line.join(y) + jax.lax.dynamic_slice_in_dim(cache["above"], column, 1, axis=1)

        def finish(cache):
            context = self.lines["context_row"](cache["row"], np.zeros(width, np.int32))
            line = self.lines["context_column"]
            q, k, v = line.project(context)
            keys, values = (
                _put(cache[f"column_{name}"], new[:, None], row) for name, new in (("key", k), ("value", v))
            )
            lines = (y.swapaxes(1, 2).reshape(batch * width, height, *y.shape[3:]) for y in (keys, values))
            q = q.reshape(batch * width, 1, *q.shape[2:])
            at = jnp.asarray(row).reshape(1)
            above = line.join(step_attention(q, *lines, at, np.arange(height), steps_are_sorted=True))
            return dict(cache, column_key=keys, column_value=values, above=above.reshape(batch, width, -1))

        if isinstance(start, (int, np.integer)):
            return y, finish(cache) if column == width - 1 else cache
        return y, jax.lax.cond(column == width - 1, finish, lambda cache: cache, cache)


class Line(nn.Module):
    """Multi-head attention along lines."""

    width: int
    heads: Annotated[int, COUNT]
    kernel_init: Any
    out_init: Any
    out_bias: bool
    dtype: Any

    def setup(self):
        args = self.width, ("embed", "heads"), self.kernel_init, False, self.dtype
        self.query, self.key, self.value = Dense(*args), Dense(*args), Dense(*args)
        self.out = Dense(self.width, ("heads", "embed"), self.out_init, self.out_bias, self.dtype)

    def project(self, x):
        """[B, N, D] -> queries, keys and values [B, N, H, D/H]."""
        return tuple(f(x).reshape(*x.shape[:2], self.heads, -1) for f in (self.query, self.key, self.value))

    def join(self, y):
        """[B, N, H, D/H] -> [B, N, D]."""
        return self.out(y.reshape(*y.shape[:2], self.width))

    def __call__(self, x, steps, front=None):
        """Lines [B L, N, D] under steps [N]; `front` [B, P, D] holds keys that every line of its example sees."""
        q, k, v = self.project(x)
        key_steps = steps
        if front is not None and front.shape[1]:
            times, count = len(x) // len(front), front.shape[1]
            more = (jnp.repeat(y, times, axis=0) for y in self.project(front)[1:])
            k, v = (jnp.concatenate([a, b], axis=1) for a, b in zip(more, (k, v), strict=True))
            key_steps = np.concatenate([np.zeros(count, steps.dtype), steps])
        return self.join(step_attention(q, k, v, steps, key_steps, steps_are_sorted=True))


def _put(rows, new, index):
    return jax.lax.dynamic_update_slice_in_dim(rows, new.astype(rows.dtype), index, axis=1)
