"""A vision transformer that is read at two depths: what a picture shows from its last block, how it looks from an
earlier one (DualToken, arXiv 2503.14324).

The first half of a latent's channels is what the last block gives, the second what the earlier one gives. Pictures are
made of the second half alone: reconstruction reaches no block behind the earlier one, and what the later ones learn is
left to another loss (`vargen.tokenizers.semantic`). With a product of two tables each half has its own.
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.layers import Dense, Norm, logical
from vargen.limits import COUNT, SIZE, check_heads
from vargen.tokenizers import patches
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.teachers.vit import NORMAL, VitBlock


class DepthsEncoder(nn.Module):
    """Images to latents, read at two depths.

    Attributes:
      out_channels: of the latents, half from each depth.
      patch: pixels per side of a patch.
      width: D.
      layers: blocks.
      shallow: blocks before the second half of the channels.
      heads: of the attention.
      dtype: of the computation.
    """

    out_channels: int
    patch: int
    width: int
    layers: int
    shallow: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] -> float32 [B, H/p, W/p, out_channels]."""
        batch, height, width, channels = images.shape
        p = self.patch
        h, w = height // p, width // p
        x = images.astype(self.dtype).reshape(batch, h, p, w, p, channels).swapaxes(2, 3)
        x = Dense(self.width, (None, "embed"), dtype=self.dtype, name="patch_in")(x.reshape(batch, h * w, -1))
        x = x + self.param("places", logical(NORMAL, None, "embed"), (h * w, self.width)).astype(self.dtype)
        read = {}
        for i in range(self.layers):
            x = VitBlock(self.heads, 4 * self.width, "gelu", False, self.dtype, name=f"block{i}")(x)
            read[i + 1] = x
        halves = [
            Dense(self.out_channels // 2, ("embed", "latent"), dtype=self.dtype, name=f"{name}_out")(
                Norm(name=f"{name}_norm")(read[depth])
            )
            for name, depth in (("deep", self.layers), ("shallow", self.shallow))
        ]
        return jnp.concatenate(halves, axis=-1).reshape(batch, h, w, -1).astype(jnp.float32)


class DepthsDecoder(nn.Module):
    """Latents to images, of the second half of their channels; attributes as `DepthsEncoder`'s."""

    out_channels: int
    patch: int
    width: int
    layers: int
    heads: int
    dtype: Any

    def setup(self) -> None:
        self.patch_out = Dense(self.patch**2 * self.out_channels, ("embed", None), dtype=self.dtype)

    @nn.compact
    def features(self, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, D], all but the last layer."""
        batch, h, w, channels = latents.shape
        x = latents[..., channels // 2 :].astype(self.dtype).reshape(batch, h * w, -1)
        x = Dense(self.width, ("latent", "embed"), dtype=self.dtype, name="projection")(x)
        x = x + self.param("places", logical(NORMAL, None, "embed"), (h * w, self.width)).astype(self.dtype)
        for i in range(self.layers):
            x = VitBlock(self.heads, 4 * self.width, "gelu", False, self.dtype, name=f"block{i}")(x)
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
    patch: Annotated[int, SIZE] = 14,
    width: Annotated[int, SIZE] = 1152,
    layers: Annotated[int, COUNT] = 26,
    shallow: Annotated[int, COUNT] = 6,
    heads: Annotated[int, COUNT] = 16,
    decoder_layers: Annotated[int, COUNT] = 12,
) -> Codec:
    """The part "depths" of the axis "encoder"; the defaults are as DualToken reads SigLIP-so400m.

    Args:
      image_size, image_channels: of the images, (H, W) and C.
      latent_channels: channels that the decoder takes.
      moments: 1; an encoder read at two depths gives no variance.
      dtype: of the computation.
      patch: pixels per side of a patch.
      width, heads: of the encoder's and the decoder's blocks.
      layers: the encoder's blocks, of which the last gives the first half of the channels.
      shallow: the block that gives the second.
      decoder_layers: the decoder's blocks.

    Raises:
      UserError: the image does not divide into patches, the heads not the width, the channels not into halves; there
        is no block behind the shallow one; a tokenizer of means and variances.
    """
    grid = patches.grid(image_size, patch)
    check_heads(heads, width, "tokenizer.encoder.heads")
    if shallow >= layers:
        raise UserError(
            f"config field tokenizer.encoder.shallow: expected less than layers, {layers}, found {shallow}"
        )
    if latent_channels % 2 or moments != 1:
        raise UserError(
            "config field tokenizer.encoder: depths needs a tokenizer of codes with an even number of channels, found "
            f"{latent_channels}{' of means and variances' if moments != 1 else ''}"
        )
    return Codec(
        encoder=DepthsEncoder(latent_channels, patch, width, layers, shallow, heads, dtype),
        decoder=DepthsDecoder(image_channels, patch, width, decoder_layers, heads, dtype),
        grid=grid,
        latent_channels=latent_channels,
        last_name="patch_out",
    )
