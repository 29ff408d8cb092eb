"""Wavelets outside, a small autoencoder inside (WaLLoC, arXiv 2412.09405): images -> an invertible wavelet packet
transform -> one linear map -> latents, and back through a convolutional network at the latents' own resolution.

The transform makes of [B, H, W, C] the same numbers as [B, H / 2^J, W / 2^J, 4^J C], so that the encoder's one matrix
sees what a patch's neighbours hold as well, and nothing in the network is of the image's size.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.layers import Dense
from vargen.limits import COUNT, SIZE, Between, OneOf
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.conv import Middle, ResidualBlock
from vargen.tokenizers.layers import GroupNorm, conv

# The lifting steps of a wavelet: to the odd numbers of a row their even neighbours' sum times the first factor, to the
# even ones their odd neighbours' times the second, and so on; then the even ones, the low band, are multiplied by a
# number and the odd ones divided by its negative (Daubechies and Sweldens, "Factoring wavelet transforms into lifting
# steps", 1998). Signs and places are those of PyWavelets' bior4.4 in mode "periodization", as published weights expect.
CDF97 = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
CDF97_SCALE = 1.1496043988602418
WAVELETS = ("cdf97", "haar")


def analysis(x: jax.Array, levels: int, wavelet: str) -> jax.Array:
    """The wavelet packet transform: every band is split again at each level.

    Args:
      x: [B, H, W, C], H and W multiples of 2^levels; beyond a side it goes on at the other.
      levels: J.
      wavelet: one of `WAVELETS`: "cdf97" (Cohen, Daubechies and Feauveau's biorthogonal one of 9 and 7 taps, of which
        JPEG 2000 is made) or "haar" (orthonormal).

    Returns:
      [B, H / 2^J, W / 2^J, 4^J C]; of each channel the bands low, high along H, high along W, high along both.
    """
    for _ in range(levels):
        low, high = _split(x, 2, wavelet)
        bands = [band for half in (low, high) for band in _split(half, 1, wavelet)]
        x = jnp.stack(bands, axis=-1)
        x = x.reshape(*x.shape[:3], -1)
    return x


def synthesis(x: jax.Array, levels: int, wavelet: str) -> jax.Array:
    """The inverse of `analysis`: [B, h, w, 4^J C] -> [B, 2^J h, 2^J w, C]."""
    for _ in range(levels):
        bands = jnp.moveaxis(x.reshape(*x.shape[:3], -1, 4), -1, 0)
        low, high = (_join(*pair, 1, wavelet) for pair in (bands[:2], bands[2:]))
        x = _join(low, high, 2, wavelet)
    return x


def _split(x: jax.Array, axis: int, wavelet: str) -> tuple[jax.Array, jax.Array]:
    """The low and the high band along an axis, each half as long."""
    even, odd = (jax.lax.slice_in_dim(x, start, None, 2, axis) for start in (0, 1))
    if wavelet == "haar":
        return (even + odd) * math.sqrt(0.5), (even - odd) * math.sqrt(0.5)
    for step, factor in enumerate(CDF97):
        even, odd = _lifted(even, odd, step, factor, axis)
    return even * CDF97_SCALE, -odd / CDF97_SCALE


def _join(low: jax.Array, high: jax.Array, axis: int, wavelet: str) -> jax.Array:
    """The inverse of `_split`."""
    if wavelet == "haar":
        even, odd = (low + high) * math.sqrt(0.5), (low - high) * math.sqrt(0.5)
    else:
        even, odd = low / CDF97_SCALE, -high * CDF97_SCALE
        for step, factor in reversed(list(enumerate(CDF97))):
            even, odd = _lifted(even, odd, step, -factor, axis)
    x = jnp.stack([even, odd], axis=axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _lifted(even, odd, step: int, factor: float, axis: int):
    """One lifting step, of which the first changes the odd numbers; its inverse has the other sign."""
    if step % 2:
        return even + factor * (odd + jnp.roll(odd, 1, axis)), odd
    return even, odd + factor * (even + jnp.roll(even, -1, axis))


class WaveletEncoder(nn.Module):
    """Images to latents: the transform, then a linear map of each place, or residual blocks.

    Attributes:
      out_channels: channels of the result (twice the latents' for a Gaussian).
      levels, wavelet: of the transform.
      width: of the residual blocks; 0: one linear map alone.
      blocks: residual blocks before the middle.
      groups: of the normalisation.
      dtype: of the computation; the transform is in float32.
    """

    out_channels: int
    levels: int
    wavelet: str
    width: int
    blocks: int
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] -> float32 [B, h, w, out_channels]."""
        h = analysis(images.astype(jnp.float32), self.levels, self.wavelet).astype(self.dtype)
        if not self.width:
            return Dense(self.out_channels, (None, "latent"), dtype=self.dtype, name="linear")(h).astype(
                jnp.float32
            )
        h = conv(self.width, dtype=self.dtype, name="conv_in")(h)
        for block in range(self.blocks):
            h = ResidualBlock(self.width, self.groups, self.dtype, name=f"block{block}")(h)
        h = Middle(self.width, self.groups, self.dtype, name="middle")(h)
        h = nn.silu(GroupNorm(self.groups, name="norm_out")(h))
        return conv(self.out_channels, dtype=self.dtype, name="conv_out")(h).astype(jnp.float32)


class WaveletDecoder(nn.Module):
    """Latents to images: residual blocks and an attention at the latents' resolution, then the inverse transform.

    Attributes:
      out_channels: of the images.
      levels, wavelet: of the transform.
      width, blocks: residual blocks behind the middle, one more than `blocks`, of `width` channels.
      groups: of the normalisation.
      dtype: of the computation; the transform is in float32.
    """

    out_channels: int
    levels: int
    wavelet: str
    width: int
    blocks: int
    groups: int
    dtype: Any

    def setup(self) -> None:
        self.conv_out = conv(4**self.levels * self.out_channels, dtype=self.dtype)

    @nn.compact
    def features(self, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, width], all but the last layer and the transform."""
        h = conv(self.width, dtype=self.dtype, name="conv_in")(latents.astype(self.dtype))
        h = Middle(self.width, self.groups, self.dtype, name="middle")(h)
        for block in range(self.blocks + 1):
            h = ResidualBlock(self.width, self.groups, self.dtype, name=f"block{block}")(h)
        return nn.silu(GroupNorm(self.groups, name="norm_out")(h))

    def last(self, features: jax.Array) -> jax.Array:
        """The last layer and the inverse transform: [B, h, w, width] -> float32 [B, H, W, out_channels]."""
        return synthesis(self.conv_out(features).astype(jnp.float32), self.levels, self.wavelet)

    def __call__(self, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> float32 [B, H, W, out_channels]."""
        return self.last(self.features(latents))


def build(
    image_size: tuple[int, int],
    image_channels: int,
    latent_channels: int,
    moments: int,
    dtype: Any,
    levels: Annotated[int, Between(1, 8)] = 3,
    wavelet: Annotated[str, OneOf(*WAVELETS)] = "cdf97",
    width: Annotated[int, SIZE] = 512,
    blocks: Annotated[int, COUNT] = 2,
    encoder_width: Annotated[int, Between(0, 2**20)] = 0,
    groups: Annotated[int, SIZE] = 32,
) -> Codec:
    """The part "wavelets" of the axis "encoder".

    Args:
      image_size, image_channels: of the images, (H, W) and C.
      latent_channels: channels that the decoder takes.
      moments: 1, or 2 where the encoder gives mean and log-variance.
      dtype: of the computation.
      levels: J of the wavelet packet transform; a latent is of 2^J x 2^J pixels.
      wavelet: "cdf97" (biorthogonal, of 9 and 7 taps) or "haar".
      width: channels of the decoder.
      blocks: residual blocks of a network that isn't linear; the decoder has one more.
      encoder_width: channels of the encoder; 0: it is one linear map.
      groups: of the group normalisation.

    Raises:
      UserError: the image does not divide by 2^J, or a width by the groups.
    """
    down = 2**levels
    if any(side % down for side in image_size):
        sizes = "x".join(map(str, image_size))
        most = (math.gcd(*image_size) & -math.gcd(*image_size)).bit_length() - 1
        raise UserError(
            f"config field tokenizer.encoder.levels: {levels} levels need an image size divisible by {down}, found "
            f"{sizes}" + (f", which allows {most}" if most else "")
        )
    for channels in (width, encoder_width):
        if channels and channels % min(groups, channels):
            raise UserError(
                f"config field tokenizer.encoder.groups: expected a divisor of all widths, found {groups} and "
                f"{channels}"
            )
    shared = dict(levels=levels, wavelet=wavelet, blocks=blocks, groups=groups, dtype=dtype)
    return Codec(
        encoder=WaveletEncoder(out_channels=moments * latent_channels, width=encoder_width, **shared),
        decoder=WaveletDecoder(out_channels=image_channels, width=width, **shared),
        grid=(image_size[0] // down, image_size[1] // down),
        latent_channels=latent_channels,
        last_name="conv_out",
        any_size=True,
    )
