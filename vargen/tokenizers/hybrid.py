"""HART's hybrid tokenizer (arXiv 2410.10812): multi-scale codes for the large, and a continuous residual for the rest.

The decoder is trained on both: on the latents that the codes make, and on the encoder's own. So a picture may be
decoded from its codes alone, or from codes and what they leave of the latents, a vector for each slot of the last
level. HART draws that vector by a small diffusion, after the slot's code and given it (the head `hybrid`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vargen.limits import COUNT, SHARE, SIZE, Above, AtLeast, Between
from vargen.slots import Slot
from vargen.tokenizers import assembly
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import check_images, flat
from vargen.tokenizers.multiscale import MultiScaleVQ


@dataclasses.dataclass(frozen=True)
class HybridMultiScaleVQ(MultiScaleVQ):
    """`MultiScaleVQ`, whose decoder knows the continuous latents too.

    The content is codes, as any generator of levels draws them, or has the residual beside those of the last level
    (`Slot.coded`). With it the latents are

        f = f_hat of the levels before the last + codebook[last level's codes] + residual,

    without the last level's convolution phi: exactly the encoder's where the residual is.

    Attributes:
      continuous: share of the examples whose decoder is trained on the encoder's latents.
      beside: whether the content has the residual, float32 [B, N, 1 + C] instead of codes int32 [B, N].
    """

    continuous: float
    beside: bool

    @property
    def slot(self) -> Slot:
        """A code; or one and C numbers, zeros but at the last level."""
        if not self.beside:
            return super().slot
        return Slot((1 + self.channels,), coded=self.vocab, bare=self.grid.level_starts[-1])

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N], or the content with the residual. The key is not used."""
        check_images(self, images)
        latents = self.codec.encode(params, images)
        codes, _ = self.quantise(params["quantizer"], latents)
        if not self.beside:
            return codes
        residual = flat(latents) - flat(self.completed(params["quantizer"], codes))
        return self.slot.joined(codes, jnp.pad(residual, ((0, 0), (self.slot.bare, 0), (0, 0))))

    def absorb(self, qparams: dict, f_hat: jax.Array, content: jax.Array, level: int) -> jax.Array:
        """f_hat [B, h, w, C] with the content [B, n, ...] of `level` added; of the last level with its residual."""
        if not self.beside:
            return super().absorb(qparams, f_hat, content, level)
        codes, residual = self.slot.apart(content)
        if level < len(self.grid.levels) - 1:
            return super().absorb(qparams, f_hat, codes, level)
        return f_hat + (self.vectors(qparams, codes) + residual).reshape(f_hat.shape)

    def residual(self, params: dict, images: jax.Array, codes: jax.Array) -> jax.Array:
        """What codes int32 [B, N] leave of the latents of images [B, H, W, C_image]: float32 [B, n, C], of each slot of
        the last level."""
        check_images(self, images)
        latents = self.codec.encode(params, images)
        return flat(latents) - flat(self.completed(params["quantizer"], codes))

    def completed(self, qparams: dict, codes: jax.Array, residual: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N] and a residual float32 [B, n, C] (None: zeros) -> latents float32 [B, h, w, C]."""
        *before, last = self.split(codes)
        f_hat = self.start(len(codes))
        for level, own in enumerate(before):
            f_hat = f_hat + self._spread(qparams, own, level)
        added = self.vectors(qparams, last)
        added = added if residual is None else added + residual
        return f_hat + added.reshape(f_hat.shape)

    def decode_hybrid(self, params: dict, codes: jax.Array, residual: jax.Array) -> jax.Array:
        """Codes int32 [B, N] and a residual float32 [B, n, C] -> float32 [B, H, W, C_image], not clipped."""
        return self.decode_latents(params, self.completed(params["quantizer"], codes, residual))

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """As of `MultiScaleVQ`, but for some examples the latents are the encoder's."""
        quantised, loss, stats, metrics = super().bottleneck(params, stats, images, key)
        whole = jax.random.bernoulli(jax.random.fold_in(key, 1), self.continuous, (len(images), 1, 1, 1))
        return jnp.where(whole, self.codec.encode(params, images), quantised), loss, stats, metrics


def build_hybrid_multiscale(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    levels: Annotated[tuple[int | tuple[int, int], ...], SIZE] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    vocab: Annotated[int, Between(2, 2**24)] = 4096,
    channels: Annotated[int, SIZE] = 32,
    continuous: Annotated[float, SHARE] = 0.5,
    beside: bool = False,
    normalise: bool = False,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    codebook_weight: Annotated[float, AtLeast(0)] = 1.0,
    centre_weight: Annotated[float, AtLeast(0)] = 0.1,
    entropy_weight: Annotated[float, AtLeast(0)] = 0.0,
    entropy_temperature: Annotated[float, Above(0)] = 0.3,
    phi: Annotated[int, Between(0, 4096)] = 4,
    phi_ratio: Annotated[float, SHARE] = 0.5,
    level_dropout: Annotated[float, SHARE] = 0.0,
    level_dropout_from: Annotated[int, COUNT] = 1,
    revive_every: Annotated[int, AtLeast(0)] = 100,
    revive_until: Annotated[float, SHARE] = 0.67,
    revive_threshold: Annotated[float, SHARE] = 0.03,
    kmeans: Annotated[int, Between(0, 1000)] = 0,
) -> HybridMultiScaleVQ:
    """The part "hybrid_multiscale": codes at several resolutions, and a decoder of continuous latents too.

    The other options are `HybridMultiScaleVQ`'s attributes. The defaults are HART's for 256x256 pixels.

    Args:
      levels: sides, or (height, width) pairs, coarse to fine; the last is the encoder's grid.

    Raises:
      UserError: the last level is not the encoder's grid, or a level is larger than it; more levels are to stay than
        there are.
    """
    assembly.levels_that_stay(levels, level_dropout_from)
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    grid = assembly.levels(levels, codec.grid, encoder, image_size)
    return assembly.made(HybridMultiScaleVQ, locals(), grid=grid)
