"""The convolutional autoencoder of VQGAN (arXiv 2012.09841), which latent diffusion and most visual
autoregressive models inherited. One implementation; the published ones are sizes:

- VAR: width 160, multipliers (1, 1, 2, 2, 4), attention at the lowest resolution, 3x3 convolutions at the
  latents
- LlamaGen: width 128, (1, 1, 2, 2, 4) or (1, 2, 2, 4), the same attention, 256 channels before the 1x1
  projections
- MAR: width 128, (1, 1, 2, 2, 4), no attention at the decoder's lowest resolution, 1x1 projections
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.layers import Dense
from vargen.limits import COUNT, SIZE, Between, OneOf
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.layers import AdaptiveNorm, GroupNorm, conv, double, spread

LEVEL = Between(0, 64)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 shortcut where the width changes.

    Attributes:
      features: channels of the result.
      groups: of the normalisation.
      dtype: of the computation.
      bias: whether the convolutions have biases.
    """

    features: int
    groups: int
    dtype: Any
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, features]."""
        h = x
        for i in (1, 2):
            h = nn.silu(GroupNorm(self.groups, name=f"norm{i}")(h))
            h = conv(self.features, bias=self.bias, dtype=self.dtype, name=f"conv{i}")(h)
        if x.shape[-1] != self.features:
            shortcut = Dense(self.features, (None, "conv"), bias=self.bias, dtype=self.dtype, name="shortcut")
            x = shortcut(x)
        return x + h


class Attention(nn.Module):
    """Single-head attention over all positions, with a residual connection."""

    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        batch, height, width, channels = x.shape
        h = GroupNorm(self.groups, name="norm")(x).reshape(batch, height * width, channels)
        q, k, v = jnp.split(Dense(3 * channels, (None, "conv"), dtype=self.dtype, name="qkv")(h), 3, axis=-1)
        weights = jnp.einsum("bqc,bkc->bqk", q, k, preferred_element_type=jnp.float32) * channels**-0.5
        weights = nn.softmax(weights, axis=-1).astype(v.dtype)  # the softmax itself in float32
        h = jnp.einsum("bqk,bkc->bqc", weights, v)
        return x + Dense(channels, (None, "conv"), dtype=self.dtype, name="out")(h).reshape(x.shape)


class Middle(nn.Module):
    """Residual block, attention where there is some, residual block at the lowest resolution."""

    features: int
    groups: int
    dtype: Any
    attention: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ResidualBlock(self.features, self.groups, self.dtype, name="block0")(x)
        x = Attention(self.groups, self.dtype, name="attention")(x) if self.attention else x
        return ResidualBlock(self.features, self.groups, self.dtype, name="block1")(x)


class ConvEncoder(nn.Module):
    """Images to latents, halved once between levels.

    Attributes:
      out_channels: channels of the result (twice the latents' for a Gaussian).
      hidden: channels before the last projection.
      width, multipliers, blocks: level i has `blocks` residual blocks of width * multipliers[i] channels.
      attention: the levels whose blocks are followed by attention.
      middle_attention: whether there is attention in the middle.
      projection: kernel size of the last projection (1 or 3); 0: there is none.
      groups: of the normalisation.
      dtype: of the computation.
    """

    out_channels: int
    hidden: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    middle_attention: bool
    projection: int
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] -> float32 [B, h, w, out_channels]."""
        h = conv(self.width, dtype=self.dtype, name="conv_in")(images.astype(self.dtype))
        lowest = len(self.multipliers) - 1
        for level, multiplier in enumerate(self.multipliers):
            for block in range(self.blocks):
                name = f"level{level}_block{block}"
                h = ResidualBlock(self.width * multiplier, self.groups, self.dtype, name=name)(h)
                if level in self.attention:
                    h = Attention(self.groups, self.dtype, name=f"level{level}_attention{block}")(h)
            if level != lowest:
                # One row and column of zeros below and to the right only, as the published weights expect.
                down = conv(
                    h.shape[-1],
                    stride=2,
                    padding=[(0, 1), (0, 1)],
                    dtype=self.dtype,
                    name=f"level{level}_down",
                )
                h = down(h)
        h = Middle(h.shape[-1], self.groups, self.dtype, self.middle_attention, name="middle")(h)
        h = nn.silu(GroupNorm(self.groups, name="norm_out")(h))
        h = conv(self.hidden, dtype=self.dtype, name="conv_out")(h)
        if self.projection:
            h = conv(self.out_channels, self.projection, dtype=self.dtype, name="projection")(h)
        return h.astype(jnp.float32)


class ConvDecoder(nn.Module):
    """Latents to images: the encoder mirrored, one more residual block per level; the same attributes, and others.

    Attributes:
      adaptive, spread: see `build`.
    """

    out_channels: int
    hidden: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    middle_attention: bool
    projection: int
    groups: int
    adaptive: bool
    spread: bool
    dtype: Any

    def setup(self) -> None:
        self.conv_out = conv(self.out_channels, dtype=self.dtype)

    @nn.compact
    def features(self, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, H, W, width * multipliers[0]], all but the last layer."""
        h = latents.astype(self.dtype)
        if self.projection:
            h = conv(self.hidden, self.projection, dtype=self.dtype, name="projection")(h)
        lowest = len(self.multipliers) - 1
        h = conv(self.width * self.multipliers[-1], dtype=self.dtype, name="conv_in")(h)
        h = Middle(h.shape[-1], self.groups, self.dtype, self.middle_attention, name="middle")(h)
        for level in reversed(range(lowest + 1)):
            if self.adaptive:
                h = AdaptiveNorm(self.groups, name=f"level{level}_norm")(h, latents.astype(jnp.float32))
            for block in range(self.blocks + 1):
                name = f"level{level}_block{block}"
                h = ResidualBlock(self.width * self.multipliers[level], self.groups, self.dtype, name=name)(h)
                if level in self.attention:
                    h = Attention(self.groups, self.dtype, name=f"level{level}_attention{block}")(h)
            if level != 0:
                name, wide = f"level{level}_up", h.shape[-1]
                if self.spread:
                    h = spread(conv(4 * wide, dtype=self.dtype, name=name)(h))
                else:
                    h = conv(wide, dtype=self.dtype, name=name)(double(h))
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
    blocks: Annotated[int, COUNT] = 2,
    hidden: Annotated[int, Between(0, 2**20)] = 0,
    projection: Annotated[int, OneOf(0, 1, 3)] = 1,
    encoder_attention: Annotated[bool | tuple[int, ...], LEVEL] = True,
    decoder_attention: Annotated[bool | tuple[int, ...], LEVEL] = True,
    middle_attention: bool = True,
    groups: Annotated[int, SIZE] = 32,
    adaptive: bool = False,
    spread: bool = False,
) -> Codec:
    """The part "conv" of the axis "encoder".

    Args:
      image_size, image_channels: of the images, (H, W) and C.
      latent_channels: channels that the decoder takes.
      moments: 1, or 2 where the encoder gives mean and log-variance.
      dtype: of the computation.
      width: channels of the first level.
      multipliers: of the width, one per level; each level but the last halves the resolution.
      blocks: residual blocks per level of the encoder (the decoder has one more).
      hidden: channels between the convolutions and the projections to and from the latents; 0 for the
        latents' own.
      projection: kernel size of those projections, 1 or 3; 0: there are none.
      encoder_attention, decoder_attention: attention after the blocks of the lowest level, or of levels by their
        numbers, 0 that of the whole image.
      middle_attention: attention between the two blocks of the middle.
      groups: of the group normalisation.
      adaptive: each level of the decoder begins with a normalisation whose scale and offset follow from the latents, as
        in the part "adaptive".
      spread: the decoder makes larger pictures of channels, as in that part, not by repeating pixels.

    Raises:
      UserError: the image does not divide by the downsampling, or a width by the groups; channels before projections
        that there aren't.
    """
    grid = latent_size(image_size, width, multipliers, groups)
    if hidden and not projection:
        raise UserError(
            f"config field tokenizer.encoder.hidden: needs projections, such as projection=1, found {hidden}"
        )
    shared = dict(
        width=width,
        multipliers=tuple(multipliers),
        blocks=blocks,
        middle_attention=middle_attention,
        projection=projection,
        groups=groups,
        dtype=dtype,
    )
    return Codec(
        encoder=ConvEncoder(
            out_channels=moments * latent_channels,
            hidden=moments * (hidden or latent_channels),
            attention=_levels(encoder_attention, multipliers),
            **shared,
        ),
        decoder=ConvDecoder(
            out_channels=image_channels,
            hidden=hidden or latent_channels,
            attention=_levels(decoder_attention, multipliers),
            adaptive=adaptive,
            spread=spread,
            **shared,
        ),
        grid=grid,
        latent_channels=latent_channels,
        last_name="conv_out",
        any_size=True,
    )


def _levels(attention: bool | tuple[int, ...], multipliers: tuple[int, ...]) -> tuple[int, ...]:
    """The levels with attention."""
    count = len(multipliers)
    if isinstance(attention, bool):
        return (count - 1,) if attention else ()
    if outside := [level for level in attention if level >= count]:
        raise UserError(
            f"config field tokenizer.encoder: expected attention at levels from 0 to {count - 1}, found {outside[0]}"
        )
    return tuple(attention)


def latent_size(
    image_size: tuple[int, int], width: int, multipliers: tuple[int, ...], groups: int
) -> tuple[int, int]:
    """(h, w) of the latents where each of the levels but the last halves the resolution.

    Args:
      image_size: (H, W).
      width, multipliers, groups: as of `build`.

    Raises:
      UserError: the image does not divide by the downsampling, or a width by the groups.
    """
    down = 2 ** (len(multipliers) - 1)
    if any(side % down for side in image_size):
        sizes = "x".join(map(str, image_size))
        raise UserError(
            f"config field tokenizer.encoder.multipliers: {len(multipliers)} levels need an image size divisible by "
            f"{down}, found {sizes}; for instance {' or '.join(_near(image_size[0], down))}"
        )
    for channels in (width, *(width * m for m in multipliers)):
        if channels % min(groups, channels):
            raise UserError(
                f"config field tokenizer.encoder.groups: expected a divisor of all widths, found {groups} "
                f"and {channels}"
            )
    return image_size[0] // down, image_size[1] // down


def _near(size: int, down: int) -> list[str]:
    """The sizes around one that divide."""
    below = size // down * down
    return [str(x) for x in (below, below + down) if x]
