"""Pyramids: every level is the picture itself at its own resolution, whatever levels there are beside it.

FlexVAR (arXiv 2502.20313) quantises the encoder's features averaged to each level; FlowAR (arXiv 2412.15205)
averages continuous latents. Nothing is a residual, so that levels may be left out, and others asked for than were
trained.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.slots import Grid
from vargen.tokenizers import resample
from vargen.tokenizers.autoencoder import Autoencoder, check_images, flat
from vargen.tokenizers.distances import normalised
from vargen.tokenizers.kl import KL
from vargen.tokenizers.tokenizer import Leveled
from vargen.tokenizers.vq import VQ


@dataclasses.dataclass(frozen=True)
class Pyramid(Autoencoder, Leveled):
    """What pyramids of codes and of numbers have in common: the image so far is the last level's latents.

    Attributes:
      spread: how a level reaches the next: "direct", by cubic interpolation to its grid (FlexVAR); "whole", by cubic
        interpolation to the last level's grid, then averages (FlowAR).
    """

    spread: str

    independent = True

    def start(self, batch: int) -> jax.Array:
        """Before the first level: zeros of its grid."""
        return jnp.zeros((batch, *self.grid.levels[0], self.channels), jnp.float32)

    def absorb(self, qparams: dict, state: jax.Array, content: jax.Array, level: int) -> jax.Array:
        """The latents float32 [B, h, w, C] of `level` alone."""
        vectors = self.vectors(qparams, content)
        return vectors.reshape(len(content), *self.grid.levels[level], self.channels)

    def resample(self, state: jax.Array, level: int) -> jax.Array:
        """Latents [B, h', w', C] of a level at the grid of another: float32 [B, n, C]."""
        matrices = [self._matrix(axis, state.shape[1 + axis], level) for axis in (0, 1)]
        return flat(_apply(*matrices, state))

    def rows(self, qparams: dict, content: jax.Array, before: jax.Array) -> jax.Array:
        """For every slot what reaches it of the level before its own, where that is known only when traced.

        Args:
          qparams: params["quantizer"].
          content: [B, N, *slot.shape].
          before: int32 [L]: for each level the one before it, coarser; of those without one anything.

        Returns:
          float32 [B, N, C]; anything for levels without one before.
        """
        # All levels on one canvas size, so that one can be taken by its number.
        levels, most = self.grid.levels, np.max(self.grid.levels, axis=0)
        vectors = [
            x.reshape(len(x), *size, -1)
            for x, size in zip(self.split(self.vectors(qparams, content)), levels, strict=True)
        ]
        pads = [
            ((0, 0), *((0, m - s) for m, s in zip(most, x.shape[1:3], strict=True)), (0, 0)) for x in vectors
        ]
        canvases = jnp.stack([jnp.pad(x, p) for x, p in zip(vectors, pads, strict=True)])
        found = []
        for level in range(len(levels)):
            source = jnp.maximum(before[level], 0)
            matrices = [self._table(axis, level, most[axis])[source] for axis in (0, 1)]
            found.append(flat(_apply(*matrices, canvases[source])))
        return jnp.concatenate(found, axis=1)

    def over(self, levels: tuple[tuple[int, int], ...]) -> Any:
        """The same tokenizer over other levels; images have as many pixels to a slot of the last one as before.

        Raises:
          UserError: the last level has another size, and the encoder takes images of one size alone.
        """
        last, old = levels[-1], self.codec.grid
        if last != old and not self.codec.any_size:
            raise UserError(
                f"sampling.levels: expected the last to be {old[0]}x{old[1]}, as the encoder takes no other, found "
                f"{last[0]}x{last[1]}"
            )
        size = tuple(n * (pixels // o) for n, pixels, o in zip(last, self.image_size, old, strict=True))
        codec = dataclasses.replace(self.codec, grid=last)
        return dataclasses.replace(self, codec=codec, grid=Grid(levels), image_size=size)

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """The last level's latents float32 [B, h, w, C]; or the last's that is known whole, interpolated."""
        if known is None:
            return self.absorb(qparams, None, self.split(content)[-1], -1)
        found = jnp.zeros((len(content), *self.codec.grid, self.channels), jnp.float32)
        for level, (some, seen) in enumerate(zip(self.split(content), self.split(known), strict=True)):
            whole = jnp.all(seen, axis=1)[:, None, None, None]
            spread = resample.bicubic(self.absorb(qparams, None, some, level), self.codec.grid)
            found = jnp.where(whole, spread, found)
        return found

    def _matrix(self, axis: int, source: int, level: int) -> np.ndarray:
        """float32 [n, source]: from a side of `source` slots to that of `level`."""
        target, whole = self.grid.levels[level][axis], self.codec.grid[axis]
        if self.spread == "direct":
            return resample.bicubic_matrix(source, target)
        return resample.area_matrix(whole, target) @ resample.bicubic_matrix(source, whole)

    def _table(self, axis: int, level: int, most: int) -> jax.Array:
        """float32 [L, n, most]: `_matrix` from the side of every level, zeros beyond it."""
        matrices = [self._matrix(axis, size[axis], level) for size in self.grid.levels]
        return jnp.stack([np.pad(m, ((0, 0), (0, most - m.shape[1]))) for m in matrices])


@dataclasses.dataclass(frozen=True)
class PyramidVQ(Pyramid, VQ):
    """One codebook for all levels, each of which quantises the encoder's features averaged to its grid.

    Training is ours (the authors' was not published): all levels have the codebook's losses, the last is decoded, and
    of the others one, drawn anew for each update, which is compared with the picture averaged to its size.

    Attributes:
      level_weight: weight of the squared error of that other level; 0: the last alone is decoded.
    """

    level_weight: float

    def levels(self, features: jax.Array) -> list[jax.Array]:
        """The encoder's features [B, h, w, C] averaged to each level: one float32 [B n, C] per level."""
        found = [resample.area(features, size).reshape(-1, self.channels) for size in self.grid.levels]
        return [normalised(x) for x in found] if self.normalise else found

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """The last level's straight-through latents, and the losses, averaged over the levels."""
        through, loss, stats, metrics = self.through(params, stats, images, key)
        if self.level_weight and len(through) > 1:
            metrics["level"] = self._decoded_level(params, images, through[:-1], key)
            loss = loss + self.level_weight * metrics["level"]
        return through[-1], loss, stats, metrics

    def _decoded_level(self, params: dict, images: jax.Array, through: list, key: jax.Array) -> jax.Array:
        """The squared error of one level, drawn at random, decoded at its own size."""

        def error(latents):
            picture = self.codec.decode(params, latents)
            return jnp.mean(jnp.square(picture - resample.area(images, picture.shape[1:3])))

        branches = [lambda x, i=i: error(x[i]) for i in range(len(through))]
        return jax.lax.switch(jax.random.randint(key, (), 0, len(through)), branches, through)


@dataclasses.dataclass(frozen=True)
class PyramidKL(Pyramid, KL):
    """Latents at each level, of which the last are the whole picture's.

    Attributes:
      of: what the other levels are: "latents", averages of the last's (FlowAR); "pictures", the latents of the picture
        itself, resized by cubic interpolation (Hi-MAR, arXiv 2505.20288).
    """

    of: str

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> float32 [B, N, C], level by level: of the mode, or with a key of a sample."""
        moments = self.moments(params, images)
        if key is None:
            return self.averages(moments[..., : self.channels])
        return self.sample_moments(moments, key)

    def moments(self, params: dict, images: jax.Array) -> jax.Array:
        """Of the last level, float32 [B, h w, 2C]; of all that are pictures, float32 [B, N, 2C]."""
        if self.of == "latents":
            return super().moments(params, images)
        check_images(self, images)
        pixels = [size // n for size, n in zip(self.image_size, self.codec.grid, strict=True)]
        sizes = [(h * pixels[0], w * pixels[1]) for h, w in self.grid.levels]
        found = [self.scaled_moments(params, resample.bicubic(images, size)) for size in sizes]
        return jnp.concatenate(found, axis=1)

    def sample_moments(self, moments: jax.Array, key: jax.Array) -> jax.Array:
        """What `moments` gave -> a sample of it at all levels, float32 [B, N, C]."""
        return self.averages(super().sample_moments(moments, key))

    def averages(self, latents: jax.Array) -> jax.Array:
        """Scaled latents float32 [B, h w, C] -> float32 [B, N, C]; those of pictures are that already."""
        if self.of == "pictures":
            return latents
        whole = latents.reshape(len(latents), *self.codec.grid, self.channels)
        return jnp.concatenate([flat(resample.area(whole, size)) for size in self.grid.levels], axis=1)

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """As of `Pyramid`, before scaling."""
        return super().latents(qparams, content, known) / qparams["scale"]


def _apply(rows: Any, columns: Any, x: jax.Array) -> jax.Array:
    """[B, h, w, C] by [i, h] and [j, w] -> float32 [B, i, j, C]."""
    # Full precision: TPUs would round to bfloat16, and the rows would differ from those of a step.
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x, precision=jax.lax.Precision.HIGHEST)
