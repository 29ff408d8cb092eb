"""A patch-wise autoencoder in the manner of MLP-Mixer (arXiv 2105.01601): nothing but matrix products.

Convolutions over small images are slow under XLA on CPUs; this is faster for images of up to some 64 pixels a side.
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import Dense, Norm
from vargen.limits import SIZE, Between
from vargen.tokenizers import patches
from vargen.tokenizers.codec import Codec


class MixerBlock(nn.Module):
    """Residual MLPs, first across the patches, then across the channels."""

    token_width: int
    channel_width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, P, D] -> [B, P, D]."""
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        h = Norm(name="norm_tokens")(x).swapaxes(1, 2)
        h = nn.gelu(Dense(self.token_width, dtype=self.dtype, names=(None, "mlp"), name="tokens_in")(h))
        h = Dense(x.shape[1], dtype=self.dtype, names=("mlp", None), kernel_init=small, name="tokens_out")(h)
        x = x + h.swapaxes(1, 2)
        h = Norm(name="norm_channels")(x)
        h = nn.gelu(
            Dense(self.channel_width, dtype=self.dtype, names=("embed", "mlp"), name="channels_in")(h)
        )
        h = Dense(
            x.shape[2], dtype=self.dtype, names=("mlp", "embed"), kernel_init=small, name="channels_out"
        )(h)
        return x + h


class PatchEncoder(nn.Module):
    """Images to latents, one latent per patch."""

    out_channels: int
    patch: int
    width: int
    blocks: int
    token_width: int
    channel_width: int
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] -> float32 [B, H/p, W/p, out_channels]."""
        batch, height, width, _ = images.shape
        h, w = height // self.patch, width // self.patch
        x = patches.apart(images.astype(self.dtype), self.patch)
        x = Dense(self.width, dtype=self.dtype, names=(None, "embed"), name="patch_in")(x)
        for i in range(self.blocks):
            x = MixerBlock(self.token_width, self.channel_width, self.dtype, name=f"block{i}")(x)
        x = Dense(self.out_channels, dtype=self.dtype, names=("embed", "latent"), name="projection")(
            Norm(name="norm")(x)
        )
        return x.reshape(batch, h, w, -1).astype(jnp.float32)


class PatchDecoder(nn.Module):
    """Latents to images, the encoder mirrored."""

    out_channels: int
    patch: int
    width: int
    blocks: int
    token_width: int
    channel_width: int
    dtype: Any

    def setup(self) -> None:
        size = self.patch**2 * self.out_channels
        self.patch_out = Dense(size, dtype=self.dtype, names=("embed", None))

    @nn.compact
    def features(self, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, D], all but the last layer."""
        batch, h, w, channels = latents.shape
        x = latents.astype(self.dtype).reshape(batch, h * w, channels)
        x = Dense(self.width, dtype=self.dtype, names=("latent", "embed"), name="projection")(x)
        # Latents know nothing of their place but by the token mixing; a learned offset tells them at once.
        place = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, "embed"))
        x = x + self.param("place", place, (h * w, self.width)).astype(self.dtype)
        for i in range(self.blocks):
            x = MixerBlock(self.token_width, self.channel_width, self.dtype, name=f"block{i}")(x)
        return Norm(name="norm")(x).reshape(batch, h, w, -1)

    def last(self, features: jax.Array) -> jax.Array:
        """The last layer: [B, h, w, D] -> float32 [B, H, W, out_channels]."""
        return patches.together(self.patch_out(features).astype(jnp.float32), features.shape[1:3], self.patch)

    def __call__(self, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> float32 [B, H, W, out_channels]."""
        return self.last(self.features(latents))


def build(
    image_size: tuple[int, int],
    image_channels: int,
    latent_channels: int,
    moments: int,
    dtype: Any,
    patch: Annotated[int, SIZE] = 4,
    width: Annotated[int, SIZE] = 128,
    blocks: Annotated[int, Between(0, 4096)] = 2,
    token_width: Annotated[int, SIZE] = 64,
    channel_width: Annotated[int, SIZE] = 256,
) -> Codec:
    """The part "patch" of the axis "encoder".

    Args:
      image_size, image_channels: of the images, (H, W) and C.
      latent_channels: channels that the decoder takes.
      moments: 1, or 2 where the encoder gives mean and log-variance.
      dtype: of the computation.
      patch: pixels per side of a patch.
      width, blocks: of the encoder and of the decoder.
      token_width, channel_width: hidden sizes of the two MLPs of a block.

    Raises:
      UserError: the image does not divide into patches.
    """
    grid = patches.grid(image_size, patch)
    shared = dict(
        patch=patch,
        width=width,
        blocks=blocks,
        token_width=token_width,
        channel_width=channel_width,
        dtype=dtype,
    )
    return Codec(
        encoder=PatchEncoder(out_channels=moments * latent_channels, **shared),
        decoder=PatchDecoder(out_channels=image_channels, **shared),
        grid=grid,
        latent_channels=latent_channels,
        last_name="patch_out",
    )
