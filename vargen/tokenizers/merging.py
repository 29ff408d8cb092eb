"""Patches that are merged from stage to stage of an encoder, and registers that begin as means of them (ResTok, arXiv
2601.03955, section 3; the authors' code).

Between the attention and the network of a stage's last block every second patch of a row of the picture becomes one of
a coarser level, which stands before the finer ones; with residuals these keep what it doesn't say. A patch sees its own
and coarser levels, a register all of them.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.layers import stacked
from vargen.mixers.rollback import mix
from vargen.sharding import by_batch
from vargen.tokenizers.transformer import Layer, Sizes, diagonal, lattice, table


class MergingLayer(Layer):
    """A block in whose midst patches are merged, of the same parameters as `Layer`.

    Attributes:
      count: of the finest patches so far, or of the coarsest: the first rows, which are merged.
      residuals: whether these keep what the merged ones don't say.
    """

    count: int = 0
    residuals: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """[B, N, D] -> [B, count/2 + N, D]."""
        block, x = self.sizes.block(False, self.dtype), by_batch(x)
        y, _ = mix(block.mixer, block.norm_1(x), self.layout, None, False)
        x = merged(x + y, self.count, self.residuals)
        return x + block.feed_forward(block.norm_2(x))


def merged(x: jax.Array, count: int, residuals: bool) -> jax.Array:
    """Rows [B, N, D] with every second of the first `count` before them: [B, count/2 + N, D].

    With `residuals` it is taken from itself and from the one after it.
    """
    fine = x[:, :count]
    coarse = fine[:, ::2]
    fine = fine - jnp.repeat(coarse, 2, axis=1) if residuals else fine
    return jnp.concatenate([coarse, fine, x[:, count:]], axis=1)


class Stages(nn.Module):
    """L blocks in S stages, at the end of each but the last of which patches are merged.

    The parameters are those of `Transformer`, and a learned row for each level of merged patches.

    Attributes:
      sizes: of the blocks.
      patches: (h, w), the finest.
      times: int [K], of registers, from 1.
      stages: S.
      residuals: see `MergingLayer`.
      dtype: of the computation.
    """

    sizes: Sizes
    patches: tuple[int, int]
    times: tuple[int, ...]
    stages: int
    residuals: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h w + K, D] -> [B, N + K, D], the N patches of all levels, the coarsest first."""
        layers, first = self.sizes.layers, self._layer(0)
        rows = jnp.zeros((1, *x.shape[1:]))

        def init(key):
            return stacked(lambda k: first.init(k, rows)["params"], key, layers)

        params, own = self.param("layers", init), table(self, "merged", self.stages - 1, self.sizes.width)
        x, start = x.astype(self.dtype), 0
        for stage in range(self.stages):
            end, last = (stage + 1) * layers // self.stages, stage + 1 == self.stages
            x = self._through(x, params, stage, start, end if last else end - 1)
            if not last:
                layer = self._layer(stage, MergingLayer, count=self._count(stage), residuals=self.residuals)
                x = layer.apply({"params": jax.tree.map(lambda p, i=end - 1: p[i], params)}, x)
                count = self._count(stage + 1)
                coarse = x[:, :count] + own[stage].astype(self.dtype)
                x = jnp.concatenate([coarse, x[:, count:]], axis=1)
            start = end
        return x

    def _through(self, x: jax.Array, params: Any, stage: int, start: int, end: int) -> jax.Array:
        """Blocks from one to another, which don't merge."""
        if start == end:
            return x
        layer = self._layer(stage)

        def step(x, params):
            return layer.apply({"params": params}, x), None

        return jax.lax.scan(step, x, jax.tree.map(lambda p: p[start:end], params))[0]

    def _layer(self, stage: int, kind: type[Layer] = Layer, **options: Any) -> Layer:
        """A block of a stage, by which rows there are in it: the coarsest patches first, registers last."""
        sides = [(self.patches[0], self.patches[1] >> s) for s in range(stage, -1, -1)]
        times, coords, count = [], [], 0
        for level, (height, width) in enumerate(sides):
            times += [level] * height * width
            coords += lattice(count, (height, width))
            count += height * width
        times += [stage + t for t in self.times]
        coords += diagonal(count, len(self.times))
        return kind(self.sizes, tuple(times), False, self.dtype, coords=tuple(coords), parent=None, **options)

    def _count(self, stage: int) -> int:
        """Of the coarsest patches in a stage."""
        return self.patches[0] * (self.patches[1] >> stage)


def cells(level: int) -> tuple[int, int]:
    """(rows, columns) of the cells whose means a level of so many registers begins as, as near a square as can be."""
    rows = max(n for n in range(1, int(level**0.5) + 1) if level % n == 0)
    return rows, level // rows


def check_cells(levels: tuple[int, ...], patches: tuple[int, int], begins: str) -> None:
    """Raises UserError where the cells of a level don't divide the patches (h, w)."""
    for level in levels:
        if any(side % n for side, n in zip(patches, cells(level), strict=True)):
            rows, columns = cells(level)
            raise UserError(
                f"config field tokenizer.encoder.begins: {begins} of {level} registers are of {rows}x{columns} cells, "
                f"expected patches that divide into these, found {patches[0]}x{patches[1]}"
            )


def check_stages(stages: int, layers: int, columns: int) -> None:
    """Raises UserError where there are fewer blocks than stages, or columns of patches can't be halved so often."""
    if stages > layers or columns % 2 ** (stages - 1):
        raise UserError(
            f"config field tokenizer.encoder.stages: expected at most the {layers} blocks, and columns of patches "
            f"that divide by 2^(stages - 1), found {stages} and {columns}"
        )


def means(patches: jax.Array, levels: tuple[int, ...], residuals: bool) -> jax.Array:
    """Of patches [B, h, w, D] the means over each level's cells, one level after another: [B, K, D].

    With `residuals` a level's are of what those before it leave.
    """
    batch, height, width, channels = patches.shape
    found = []
    for rows, columns in map(cells, levels):
        cut = patches.reshape(batch, rows, height // rows, columns, width // columns, channels)
        mean = jnp.mean(cut, axis=(2, 4), keepdims=True)
        found.append(mean.reshape(batch, -1, channels))
        patches = (cut - mean).reshape(patches.shape) if residuals else patches
    return jnp.concatenate(found, axis=1)


def repeated(rows: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """A row for each level [levels, D] -> [K, D], for each register."""
    return jnp.repeat(rows, np.array(levels), axis=0, total_repeat_length=sum(levels))
