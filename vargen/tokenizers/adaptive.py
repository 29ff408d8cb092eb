"""The convolutional autoencoder of MAGVIT-v2 (arXiv 2310.05737), as Open-MAGVIT2 (arXiv 2409.04410) publishes it.

It differs from the VQGAN of `conv` in having no attention, as many residual blocks in the decoder as in the encoder,
blocks without biases, no projections, larger pictures made of channels (a convolution to four times as many, whose
fourths are the pixels of a square), and a decoder each of whose levels begins with a normalisation whose scale and
offset follow from the latents: linear maps of their deviations and of their means over the picture.

Published: width 128, multipliers (1, 1, 2, 2, 4), 4 blocks, with the tokenizer lfq of 18 channels.
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.limits import COUNT, SIZE
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.conv import ResidualBlock, latent_size
from vargen.tokenizers.layers import AdaptiveNorm, GroupNorm, conv, spread


class AdaptiveMiddle(nn.Module):
    """Residual blocks at the lowest resolution."""

    blocks: int
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, F] -> [B, h, w, F]."""
        for block in range(self.blocks):
            x = ResidualBlock(x.shape[-1], self.groups, self.dtype, bias=False, name=f"block{block}")(x)
        return x


class AdaptiveEncoder(nn.Module):
    """Images to latents, halved by a convolution between levels.

    Attributes:
      out_channels: channels of the result (twice the latents' for a Gaussian).
      width, multipliers, blocks: level i has `blocks` residual blocks of width * multipliers[i] channels, and the
        middle as many.
      groups: of the normalisation.
      dtype: of the computation.
    """

    out_channels: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] -> float32 [B, h, w, out_channels]."""
        h = conv(self.width, bias=False, dtype=self.dtype, name="conv_in")(images.astype(self.dtype))
        for level, multiplier in enumerate(self.multipliers):
            if level:
                name = f"level{level - 1}_down"
                h = conv(h.shape[-1], stride=2, padding=[(1, 1), (1, 1)], dtype=self.dtype, name=name)(h)
            for block in range(self.blocks):
                name = f"level{level}_block{block}"
                h = ResidualBlock(self.width * multiplier, self.groups, self.dtype, bias=False, name=name)(h)
        h = AdaptiveMiddle(self.blocks, self.groups, self.dtype, name="middle")(h)
        h = nn.silu(GroupNorm(self.groups, name="norm_out")(h))
        return conv(self.out_channels, 1, dtype=self.dtype, name="conv_out")(h).astype(jnp.float32)


class AdaptiveDecoder(nn.Module):
    """Latents to images: the encoder mirrored, each level normalised by the latents; the same attributes."""

    out_channels: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    groups: int
    dtype: Any

    def setup(self) -> None:
        self.conv_out = conv(self.out_channels, dtype=self.dtype)

    @nn.compact
    def features(self, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, H, W, width * multipliers[0]], all but the last layer."""
        latents = latents.astype(jnp.float32)
        lowest = self.width * self.multipliers[-1]
        h = conv(lowest, dtype=self.dtype, name="conv_in")(latents.astype(self.dtype))
        h = AdaptiveMiddle(self.blocks, self.groups, self.dtype, name="middle")(h)
        for level in reversed(range(len(self.multipliers))):
            h = AdaptiveNorm(self.groups, name=f"level{level}_norm")(h, latents)
            width = self.width * self.multipliers[level]
            for block in range(self.blocks):
                name = f"level{level}_block{block}"
                h = ResidualBlock(width, self.groups, self.dtype, bias=False, name=name)(h)
            if level:
                h = spread(conv(4 * width, dtype=self.dtype, name=f"level{level}_up")(h))
        return nn.silu(GroupNorm(self.groups, name="norm_out")(h))

    def last(self, features: jax.Array) -> jax.Array:
        """The last layer: [B, H, W, F] -> float32 [B, H, W, out_channels]."""
        return self.conv_out(features).astype(jnp.float32)

    def __call__(self, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> float32 [B, H, W, out_channels]."""
        return self.last(self.features(latents))


def build(
    image_size: tuple[int, int],
    image_channels: int,
    latent_channels: int,
    moments: int,
    dtype: Any,
    width: Annotated[int, SIZE] = 128,
    multipliers: Annotated[tuple[int, ...], COUNT] = (1, 1, 2, 2, 4),
    blocks: Annotated[int, COUNT] = 4,
    groups: Annotated[int, SIZE] = 32,
) -> Codec:
    """The part "adaptive" of the axis "encoder".

    Args:
      image_size, image_channels: of the images, (H, W) and C.
      latent_channels: channels that the decoder takes.
      moments: 1, or 2 where the encoder gives mean and log-variance.
      dtype: of the computation.
      width: channels of the first level.
      multipliers: of the width, one per level; each level but the last halves the resolution.
      blocks: residual blocks per level, and in the middle, of encoder and decoder alike.
      groups: of the group normalisation.

    Raises:
      UserError: the image does not divide by the downsampling, or a width by the groups.
    """
    grid = latent_size(image_size, width, multipliers, groups)
    shared = dict(width=width, multipliers=tuple(multipliers), blocks=blocks, groups=groups, dtype=dtype)
    return Codec(
        encoder=AdaptiveEncoder(out_channels=moments * latent_channels, **shared),
        decoder=AdaptiveDecoder(out_channels=image_channels, **shared),
        grid=grid,
        latent_channels=latent_channels,
        last_name="conv_out",
        any_size=True,
    )
