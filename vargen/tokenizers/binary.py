"""Binary latents: every number of a latent is a bit, drawn in training (Binary Latent Diffusion, arXiv 2304.04820)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vargen.limits import AtLeast, Between
from vargen.tokenizers import assembly
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import latent_grid
from vargen.tokenizers.implicit import Implicit


@dataclasses.dataclass(frozen=True)
class Binary(Implicit):
    """C bits a slot, as C codes of two values: sigmoid(latent) is a bit's probability of 1.

    In training bits are drawn, and the gradient is that of their expectation; else the likelier ones are taken. What is
    decoded is -1 or 1, of which the decoder's first layer is the paper's map of bits to vectors.

    Attributes:
      certainty_weight: of the mean variance p (1 - p) of the bits.
    """

    certainty_weight: float

    @property
    def bases(self) -> tuple[int, ...]:
        """2: each channel is a code of its own."""
        return (2,)

    def squeezed(self, latents: jax.Array) -> jax.Array:
        """Probabilities of 1."""
        return jax.nn.sigmoid(latents)

    def places(self, squeezed: jax.Array) -> jax.Array:
        """1 above 1/2."""
        return (squeezed > 0.5).astype(jnp.int32)

    def places_in_training(self, squeezed: jax.Array, key: jax.Array) -> jax.Array:
        """Bits drawn."""
        return jax.random.bernoulli(key, squeezed).astype(jnp.int32)

    def values(self, places: jax.Array) -> jax.Array:
        """+-1."""
        return 2.0 * places - 1.0

    def scale(self) -> jax.Array:
        """2: the expected value is 2 p - 1."""
        return jnp.full(self.channels, 2.0, jnp.float32)

    def regularised(self, squeezed: jax.Array, values: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The variance of the bits."""
        variance = jnp.mean(squeezed * (1 - squeezed))
        return self.certainty_weight * variance, dict(variance=variance)


def build_binary(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    channels: Annotated[int, Between(2, 4096)] = 32,
    certainty_weight: Annotated[float, AtLeast(0)] = 0.0,
) -> Binary:
    """The part "binary": bits; options as `Binary`'s attributes.

    Args:
      channels: bits of a slot.
    """
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    return assembly.made(Binary, locals(), grid=latent_grid(codec), vocab=2, groups=channels)
