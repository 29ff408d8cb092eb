"""MaskGIT's VQGAN (arXiv 2202.04200), whose published weights RAR, TiTok and others build on.

It differs from the VQGAN of `conv` in having no attention, average pooling between the encoder's levels, as many
residual blocks in the decoder as in the encoder, convolutions without biases, no projections, and a shortcut that
is taken from a residual block's branch instead of its input: the published weights need it. The network itself
sees images in [0, 1]; here they are in [-1, 1] at both ends, as with every encoder.

Published: width 128, multipliers (1, 1, 2, 2, 4), 2 blocks, with the tokenizer vq of vocab 1024, channels 256,
normalise=False.
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.layers import Dense
from vargen.limits import COUNT, SIZE
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.conv import latent_size
from vargen.tokenizers.layers import GroupNorm, conv, double
from vargen.tokenizers.teachers.teacher import IMAGENET


class PooledBlock(nn.Module):
    """x + h, h = conv(silu(norm(conv(silu(norm(x)))))); h + shortcut(h) where the width changes."""

    features: int
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, features]."""
        h = x
        for i in (1, 2):
            h = nn.silu(GroupNorm(self.groups, name=f"norm{i}")(h))
            h = conv(self.features, bias=False, dtype=self.dtype, name=f"conv{i}")(h)
        if x.shape[-1] != self.features:
            x = Dense(self.features, (None, "conv"), bias=False, dtype=self.dtype, name="shortcut")(h)
        return x + h


class PooledMiddle(nn.Module):
    """Residual blocks at the lowest resolution."""

    blocks: int
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, C]."""
        for block in range(self.blocks):
            x = PooledBlock(x.shape[-1], self.groups, self.dtype, name=f"block{block}")(x)
        return x


class PooledEncoder(nn.Module):
    """Images to latents, averaged over 2x2 pixels between levels.

    Attributes:
      out_channels: channels of the result (twice the latents' for a Gaussian).
      width, multipliers, blocks: level i has `blocks` residual blocks of width * multipliers[i] channels, and the
        middle as many.
      groups: of the normalisation.
      dtype: of the computation.
      standard: see `build`.
    """

    out_channels: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    groups: int
    dtype: Any
    standard: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] in [-1, 1] -> float32 [B, h, w, out_channels]."""
        images = (images.astype(jnp.float32) + 1) / 2
        if self.standard:
            mean, deviation = (jnp.array(x) for x in IMAGENET)
            images = (images - mean) / deviation
        h = conv(self.width, bias=False, dtype=self.dtype, name="conv_in")(images.astype(self.dtype))
        for level, multiplier in enumerate(self.multipliers):
            if level:
                h = nn.avg_pool(h, (2, 2), strides=(2, 2))
            for block in range(self.blocks):
                name = f"level{level}_block{block}"
                h = PooledBlock(self.width * multiplier, self.groups, self.dtype, name=name)(h)
        h = PooledMiddle(self.blocks, self.groups, self.dtype, name="middle")(h)
        h = nn.silu(GroupNorm(self.groups, name="norm_out")(h))
        return conv(self.out_channels, 1, dtype=self.dtype, name="conv_out")(h).astype(jnp.float32)


class PooledDecoder(nn.Module):
    """Latents to images: the encoder mirrored, each pixel doubled between levels; the same attributes but the last."""

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
        lowest = self.width * self.multipliers[-1]
        h = conv(lowest, dtype=self.dtype, name="conv_in")(latents.astype(self.dtype))
        h = PooledMiddle(self.blocks, self.groups, self.dtype, name="middle")(h)
        for level in reversed(range(len(self.multipliers))):
            for block in range(self.blocks):
                name = f"level{level}_block{block}"
                h = PooledBlock(self.width * self.multipliers[level], self.groups, self.dtype, name=name)(h)
            if level:
                h = conv(h.shape[-1], dtype=self.dtype, name=f"level{level}_up")(double(h))
        return nn.silu(GroupNorm(self.groups, name="norm_out")(h))

    def last(self, features: jax.Array) -> jax.Array:
        """The last layer, from [0, 1] to [-1, 1]: [B, H, W, F] -> float32 [B, H, W, out_channels]."""
        return 2 * self.conv_out(features).astype(jnp.float32) - 1

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
    blocks: Annotated[int, COUNT] = 2,
    groups: Annotated[int, SIZE] = 32,
    standard: bool = False,
) -> Codec:
    """The part "pooled" of the axis "encoder".

    Args:
      image_size, image_channels: of the images, (H, W) and C.
      latent_channels: channels that the decoder takes.
      moments: 1, or 2 where the encoder gives mean and log-variance.
      dtype: of the computation.
      width: channels of the first level.
      multipliers: of the width, one per level; each level but the last halves the resolution.
      blocks: residual blocks per level, and in the middle, of encoder and decoder alike.
      groups: of the group normalisation.
      standard: the encoder's first layer takes colours less ImageNet's mean, over its deviation (ResTok's).

    Raises:
      UserError: the image does not divide by the downsampling, or a width by the groups; other channels than three
        that are to be less a mean.
    """
    if standard and image_channels != 3:
        raise UserError(
            f"config field tokenizer.encoder.standard: needs images of 3 channels, found {image_channels}"
        )
    grid = latent_size(image_size, width, multipliers, groups)
    shared = dict(width=width, multipliers=tuple(multipliers), blocks=blocks, groups=groups, dtype=dtype)
    return Codec(
        encoder=PooledEncoder(out_channels=moments * latent_channels, standard=standard, **shared),
        decoder=PooledDecoder(out_channels=image_channels, **shared),
        grid=grid,
        latent_channels=latent_channels,
        last_name="conv_out",
        any_size=True,
    )
