"""What every encoder part gives: an encoder, a decoder with its last layer apart, and the latents' grid."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.slots import Grid


@dataclasses.dataclass(frozen=True)
class Codec:
    """The two ends of an autoencoder.

    Attributes:
      encoder: module, images [B, H, W, C_image] -> float32 [B, h, w, moments * C]; of clips [B, T, H, W, C_image] and
        [B, t, h, w, moments * C], and so in all that follows.
      decoder: module, latents [B, h, w, C] -> float32 images; its methods `features` and `last` are the two
        parts of that: `last` alone is what the adaptive adversarial weight is measured on.
      grid: (h, w) of the latents, or (t, h, w).
      latent_channels: C.
      last_name: the name of the decoder's last layer among its parameters; of one within a part of it with slashes.
      any_size: whether the same parameters serve images of other sizes.
      slots: (height, width) of each level of the latents, one after another; () for one of the whole grid.
      draws: (height, width, channels) of what is decoded, where it is another's latents and not the images that are
        encoded (`within`); () where it is these.
    """

    encoder: nn.Module
    decoder: nn.Module
    grid: tuple[int, ...]
    latent_channels: int
    last_name: str
    any_size: bool = False
    slots: tuple[tuple[int, int], ...] = ()
    draws: tuple[int, ...] = ()

    @property
    def levels(self) -> Grid:
        """The latents as slots, one each."""
        *frames, height, width = self.grid
        return Grid(self.slots or ((height, width),), *frames)

    @property
    def lies(self) -> bool:
        """Whether latents lie in the picture, each on a patch."""
        return True

    @property
    def prefixes(self) -> bool:
        """Whether the first few latents are a picture."""
        return False

    @property
    def texts(self) -> tuple[int, int] | None:
        """(T, E) of a caption's states that the decoder can read beside latents; None where it reads none."""
        return None

    def kept(self, key: jax.Array, batch: int) -> jax.Array | None:
        """bool [B, h, w]: which latents reach the decoder in training; None where all do."""
        return None

    def init_boxed(self, key: jax.Array, image_size: tuple[int, ...], image_channels: int) -> dict:
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

    def decode(self, params: dict, latents: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """[B, h, w, C] -> float32 [B, H, W, C_image]; `known` bool [B, h, w] says which latents count, None all."""
        return self.decoder.apply({"params": params["decoder"]}, latents)

    def told(self, params: dict, latents: jax.Array, text: jax.Array) -> jax.Array:
        """As `decode`, with a caption's states float32 [B, T, E]; where there are `texts`."""
        raise NotImplementedError

    def taught(self, params: dict, latents: jax.Array, known: jax.Array | None) -> jax.Array:
        """What of the decoder is drawn towards a teacher's features and makes no pixels: [B, h, w, D]; arguments as of
        `draft`.

        Raises:
          UserError: there is no such thing.
        """
        raise UserError(
            "config field tokenizer_training.losses.semantic_at: taught needs the decoder direct with taught=True, "
            "found another"
        )

    def draft(
        self, params: dict, latents: jax.Array, known: jax.Array | None, images: jax.Array, key: jax.Array
    ) -> tuple[Any, jax.Array | None]:
        """A reconstruction for training, before the decoder's last layer.

        Args:
          params: dict(decoder=...).
          latents: [B, h, w, C].
          known: of `kept`.
          images: [B, H, W, C_image], those that are to come out.
          key: for what a decoder draws.

        Returns:
          What `last` takes, and None, or float32 [B]: weights of the squared errors.
        """
        return self.decoder.apply({"params": params["decoder"]}, latents, method="features"), None

    def beside(self, params: dict, features: Any, images: jax.Array) -> dict[str, jax.Array]:
        """What a draft loses beside the reconstruction's losses: float32 [] by names of metrics; arguments as of
        `draft`, and what it gave."""
        return {}

    def last(self, params: dict, features: Any) -> jax.Array:
        """The decoder's last layer: features -> float32 images."""
        return self.decoder.apply({"params": params["decoder"]}, features, method="last")
