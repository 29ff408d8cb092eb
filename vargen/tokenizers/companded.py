"""Companded scalar quantisation (WaLLoC, arXiv 2412.09405, section 3): each number goes through a Gaussian's
distribution function, on which it is rounded, or in training blurred by as much.

Uniform noise in rounding's place is the entropy bottleneck of learned compression (Balle et al., arXiv 1611.01704): the
gradient is the true one, and no loss is added.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from vargen.limits import SIZE, Above, Between
from vargen.tokenizers import assembly, usage
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import check_images, latent_grid
from vargen.tokenizers.implicit import ALIVE, Implicit

MARGIN = 1e-3  # by which the outer values end before one would be rounded to another code
TAIL = 1e-4  # probability at which the Gaussian's inverse is cut


@dataclasses.dataclass(frozen=True)
class Companded(Implicit):
    """C codes a slot, each of one number: u = (K - 2e-3) (Phi(z / spread) - 1/2), rounded; decoded by the inverse.

    Attributes:
      spread: s, the standard deviation under which all codes would be as frequent.
    """

    spread: float

    @property
    def bases(self) -> tuple[int, ...]:
        """K: a code is one number's."""
        return (self.vocab,)

    def squeezed(self, latents: jax.Array) -> jax.Array:
        """u, from -K/2 to K/2."""
        return (self.vocab - 2 * MARGIN) * (ndtr(latents / self.spread) - 0.5)

    def places(self, squeezed: jax.Array) -> jax.Array:
        """Rounded, counted from the least."""
        return jnp.round(squeezed + (self.vocab - 1) / 2).astype(jnp.int32)

    def values(self, places: jax.Array) -> jax.Array:
        """spread Phi^-1, cut at probabilities of 1e-4; places may be blurred."""
        share = (places - (self.vocab - 1) / 2) / (self.vocab - 2 * MARGIN) + 0.5
        return self.spread * ndtri(jnp.clip(share, TAIL, 1 - TAIL))

    def blurred(self, squeezed: jax.Array, key: jax.Array) -> jax.Array:
        """What training decodes: the values of u float32 [..., C] with uniform noise of up to half a step."""
        noise = jax.random.uniform(key, squeezed.shape, minval=-0.5, maxval=0.5)
        return self.values(squeezed + noise + (self.vocab - 1) / 2)

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """The latents blurred by up to half a step, no loss, the codes in use."""
        check_images(self, images)
        squeezed = self.squeezed(self.codec.encode(params, images))
        codes = self.places(jax.lax.stop_gradient(squeezed)).reshape(-1, self.groups)
        stats = usage.update(stats, jnp.stack([usage.hits(x, self.vocab) for x in codes.T]))
        metrics = usage.summary(stats, (1,) * self.groups, ALIVE)
        return self.blurred(squeezed, key), jnp.float32(0), stats, metrics


def build_companded(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    channels: Annotated[int, SIZE] = 12,
    vocab: Annotated[int, Between(2, 4096)] = 255,
    spread: Annotated[float, Above(0)] = 127 / 1.85,
) -> Companded:
    """The part "companded": numbers rounded under a Gaussian; the defaults are WaLLoC's of 8 bits.

    Args:
      channels: of a latent, a code each.
      vocab: codes of each number; WaLLoC's are 2^bits - 1.
      spread: see `Companded`; WaLLoC's is (2^(bits - 1) - 1) / 1.85.
    """
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    return assembly.made(Companded, locals(), grid=latent_grid(codec), groups=channels)
