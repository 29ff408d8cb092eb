"""Continuous latents with a Gaussian posterior (arXiv 1312.6114, as latent diffusion has it, 2112.10752)."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from vargen.layers import logical
from vargen.tokenizers.autoencoder import Autoencoder, check_images, flat
from vargen.tokenizers.usage import DECAY


@dataclasses.dataclass(frozen=True)
class KL(Autoencoder):
    """Latents, scaled to about unit variance.

    Attributes:
      kl_weight: weight of the divergence from N(0, I), summed over the latents and divided by the number of
        values in an image, so that it stands to a mean reconstruction loss as in a likelihood.
      scale: the latents are the encoder's multiplied by this; parameter "scale" of the quantiser.
      measure: in training, the scale follows the inverse standard deviation of the encoder's samples.
      exact: whether latents are the encoder's numbers themselves: there is no deviation, and no divergence.
    """

    kl_weight: float
    scale: float
    measure: bool
    exact: bool

    def init_quantizer(self, key: jax.Array) -> dict:
        """dict(scale float32 [C])."""
        init = logical(jax.nn.initializers.constant(self.scale), "latent")
        return dict(scale=init(key, (self.channels,), jnp.float32))

    def init_stats(self) -> dict:
        """dict(variance float32 [], updates int32 []), of the encoder's samples."""
        return dict(variance=jnp.zeros((), jnp.float32), updates=jnp.zeros((), jnp.int32))

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> latents float32 [B, N, C]: the mode, or with a key a sample."""
        moments = self.moments(params, images)
        return moments[..., : self.channels] if key is None else self.sample_moments(moments, key)

    def moments(self, params: dict, images: jax.Array) -> jax.Array:
        """[B, H, W, C_image] -> mean and standard deviation of the scaled latents, float32 [B, N, 2C]."""
        check_images(self, images)
        return self.scaled_moments(params, images)

    def scaled_moments(self, params: dict, images: jax.Array) -> jax.Array:
        """As `moments`, of images of any size that the encoder takes."""
        mean, log_variance = self._posterior(params, images)
        scale = params["quantizer"]["scale"]
        return flat(jnp.concatenate([scale * mean, scale * jnp.exp(0.5 * log_variance)], axis=-1))

    def sample_moments(self, moments: jax.Array, key: jax.Array) -> jax.Array:
        """float32 [B, N, 2C] -> a sample float32 [B, N, C]."""
        mean, std = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return mean + std * jax.random.normal(key, mean.shape)

    def stored(self, params: dict, images: jax.Array) -> jax.Array:
        """Of images [B, H, W, C_image] the moments, float32 [B, N, 2C]."""
        return self.moments(params, images)

    def drawn(self, qparams: dict, stored: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        """A sample float32 [B, N, C] of moments [B, N, 2C]; latents [B, N, C] are that already."""
        return (self.sample_moments(stored, key) if stored.shape[-1] == 2 * self.channels else stored), None

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """The latents as they are."""
        return content

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Scaled latents float32 [B, N, C] -> float32 [B, h, w, C], zero where not known."""
        latents = content / qparams["scale"]
        latents = latents if known is None else latents * known[..., None]
        return latents.reshape(-1, *self.codec.grid, self.channels)

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """A sample of the posterior, and its divergence from N(0, I)."""
        check_images(self, images)
        mean, log_variance = self._posterior(params, images)
        variance = jnp.exp(log_variance)
        latents = mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape)
        kl = jnp.zeros(())
        if not self.exact:
            kl = jnp.mean(jnp.sum(divergence(mean, log_variance), axis=tuple(range(1, mean.ndim))))
        size = math.prod(self.image_size) * self.image_channels
        updates = stats["updates"] + 1
        rate = jnp.maximum(1.0 / updates, 1.0 - DECAY)
        seen = jax.lax.stop_gradient(jnp.var(latents))
        stats = dict(variance=stats["variance"] + rate * (seen - stats["variance"]), updates=updates)
        return latents, self.kl_weight * kl / size, stats, dict(kl=kl, latent_std=jnp.sqrt(seen))

    def revive(
        self,
        params: dict,
        stats: dict,
        images: jax.Array | None,
        key: jax.Array,
        step: jax.Array | int,
        steps: int,
    ) -> tuple[dict, dict]:
        """With `measure`, sets the scale to the inverse standard deviation seen so far."""
        if not self.measure:
            return params, stats
        scale = jnp.full((self.channels,), 1.0) * jax.lax.rsqrt(jnp.maximum(stats["variance"], 1e-8))
        return dict(params, quantizer=dict(scale=scale)), stats

    def _posterior(self, params, images):
        """Mean and log-variance, float32 [B, h, w, C] each, of the latents before scaling."""
        found = self.codec.encode(params, images)
        if self.exact:
            return found, jnp.full_like(found, -jnp.inf)
        mean, log_variance = jnp.split(found, 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), elementwise, in nats."""
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)
