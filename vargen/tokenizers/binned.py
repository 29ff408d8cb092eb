"""Codes of continuous latents without another training: each number by itself into bins that a Gaussian fills alike
(TokenBridge, arXiv 2503.16430)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.limits import SIZE, Above, AtLeast, Between
from vargen.slots import Slot
from vargen.tokenizers import assembly
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import apart, latent_grid
from vargen.tokenizers.kl import KL

CUT = 3.0  # standard deviations, at which the outer bins end


@dataclasses.dataclass(frozen=True)
class BinnedKL(KL):
    """`KL`, whose latents are given by C codes a slot.

    Attributes:
      spread: the latents' standard deviation, as the bins take it.
    """

    spread: float

    @property
    def slot(self) -> Slot:
        """C codes."""
        return Slot((self.channels,), self.vocab)

    def bins(self) -> np.ndarray:
        """float32 [K], the mean of each bin: K bins of one probability under N(0, spread^2), cut at 3 deviations."""
        normal = statistics.NormalDist()
        ends = [-CUT, *(normal.inv_cdf(k / self.vocab) for k in range(1, self.vocab)), CUT]
        means = [
            (normal.pdf(low) - normal.pdf(high)) / (normal.cdf(high) - normal.cdf(low))
            for low, high in zip(ends, ends[1:], strict=False)
        ]
        return np.float32(self.spread * np.array(means))

    def binned(self, latents: jax.Array) -> jax.Array:
        """float32 [...] -> int32 [...], the bin whose mean is nearest."""
        means = self.bins()
        return jnp.searchsorted((means[1:] + means[:-1]) / 2, latents).astype(jnp.int32)

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N, C]: of the mode, or with a key of a sample."""
        return self.binned(super().encode(params, images, key))

    def drawn(self, qparams: dict, stored: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        """Codes int32 [B, N, C] of a sample of moments [B, N, 2C]."""
        return self.binned(self.sample_moments(stored, key)), None

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [..., C] -> float32 [..., C, C], each zero but in its own channel."""
        return apart(jnp.asarray(self.bins())[content][..., None])

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N, C] -> float32 [B, h, w, C], zero where not known."""
        return super().latents(qparams, jnp.asarray(self.bins())[content], known)


def build_binned_kl(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    vocab: Annotated[int, Between(2, 4096)] = 64,
    channels: Annotated[int, SIZE] = 16,
    spread: Annotated[float, Above(0)] = 5 / 3,
    kl_weight: Annotated[float, AtLeast(0)] = 1e-6,
    scale: Annotated[float, Above(0)] = 0.2325,
    measure: bool = False,
) -> BinnedKL:
    """The part "binned_kl": codes of continuous latents, several a slot; the other options as `BinnedKL`'s attributes.

    Args:
      vocab: bins of each number.
      channels: of a latent, a code each.
    """
    codec = assembly.codec(encoder, image_size, image_channels, channels, 2, dtype)
    return assembly.made(BinnedKL, locals(), grid=latent_grid(codec), exact=False)
