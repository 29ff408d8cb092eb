"""What every encoder part gives: an encoder, a decoder with its last layer apart, and the latents' grid."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Codec:
    """The two ends of an autoencoder.

    Attributes:
      encoder: module, images [B, H, W, C_image] -> float32 [B, h, w, moments * C].
      decoder: module, latents [B, h, w, C] -> float32 images; its methods `features` and `last` are the two
        parts of that: `last` alone is what the adaptive adversarial weight is measured on.
      grid: (h, w) of the latents.
      latent_channels: C.
      last_name: the name of the decoder's last layer among its parameters.
      any_size: whether the same parameters serve images of other sizes.
    """

    encoder: nn.Module
    decoder: nn.Module
    grid: tuple[int, int]
    latent_channels: int
    last_name: str
    any_size: bool = False

    def init_boxed(self, key: jax.Array, image_size: tuple[int, int], image_channels: int) -> dict:
        """dict(encoder, decoder) of parameters with logical axis names."""
        key_encoder, key_decoder = jax.random.split(key)
        images = jnp.zeros((1, *image_size, image_channels))
        latents = jnp.zeros((1, *self.grid, self.latent_channels))
        return dict(
            encoder=self.encoder.init(key_encoder, images)["params"],
            decoder=self.decoder.init(key_decoder, latents)["params"],
        )

    def encode(self, params: dict, images: jax.Array) -> jax.Array:
        """[B, H, W, C_image] -> float32 [B, h, w, moments * C]."""
        return self.encoder.apply({"params": params["encoder"]}, images)

    def decode(self, params: dict, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> float32 [B, H, W, C_image]."""
        return self.decoder.apply({"params": params["decoder"]}, latents)

    def features(self, params: dict, latents: jax.Array) -> jax.Array:
        """What the decoder's last layer takes."""
        return self.decoder.apply({"params": params["decoder"]}, latents, method="features")

    def last(self, params: dict, features: jax.Array) -> jax.Array:
        """The decoder's last layer: features -> float32 images."""
        return self.decoder.apply({"params": params["decoder"]}, features, method="last")
