"""Layers of the autoencoders: convolutions, normalisation and dense maps with named axes."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import KERNEL_INIT, Dense, logical
from vargen.tokenizers import winograd


def conv(
    features: int,
    size: int = 3,
    *,
    stride: int = 1,
    padding: Any = None,
    dtype: Any,
    name: str | None = None,
    bias: bool = True,
    init=KERNEL_INIT,
):
    """A square convolution over NHWC; padding keeps the size unless given."""
    usual = (size, stride, padding) == (3, 1, None)
    return nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding=[(size // 2, size // 2)] * 2 if padding is None else padding,
        use_bias=bias,
        dtype=dtype,
        kernel_init=logical(init, None, None, None, "conv"),
        bias_init=logical(nn.initializers.zeros, "conv"),
        conv_general_dilated=_usual if usual else None,
        name=name,
    )


def _usual(x, kernel, *_, **__):
    return winograd.convolve(x, kernel)


class GroupNorm(nn.Module):
    """Group normalisation over (H, W, C / groups), eps 1e-6, in float32; returns the dtype of its input.

    Attributes:
      groups: number of groups; reduced to the channels where there are fewer.
      affine: whether a learned scale and offset follow.
    """

    groups: int = 32
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, ..., C] -> [B, ..., C]."""
        channels = x.shape[-1]
        groups = min(self.groups, channels)
        grouped = x.astype(jnp.float32).reshape(x.shape[0], -1, groups, channels // groups)
        mean = grouped.mean(axis=(1, 3), keepdims=True)
        variance = jnp.square(grouped - mean).mean(axis=(1, 3), keepdims=True)
        normal = ((grouped - mean) * jax.lax.rsqrt(variance + 1e-6)).reshape(x.shape)
        if self.affine:
            scale = self.param("scale", logical(nn.initializers.ones, "conv"), (channels,))
            normal = normal * scale + self.param("bias", logical(nn.initializers.zeros, "conv"), (channels,))
        return normal.astype(x.dtype)


class AdaptiveNorm(nn.Module):
    """A group normalisation whose scale and offset are linear maps of the latents' deviations and means.

    Attributes:
      groups: of the normalisation.
    """

    groups: int

    @nn.compact
    def __call__(self, x: jax.Array, latents: jax.Array) -> jax.Array:
        """[B, H, W, F], latents float32 [B, h, w, C] -> [B, H, W, F], of the dtype of its input."""
        places = latents.reshape(len(latents), -1, latents.shape[-1])
        mean = jnp.mean(places, axis=1)
        # Over one place less than there are, as the published weights expect.
        squares = jnp.sum(jnp.square(places - mean[:, None]), axis=1) / max(places.shape[1] - 1, 1)
        scale = Dense(x.shape[-1], (None, "conv"), name="scale")(jnp.sqrt(squares + 1e-6))
        offset = Dense(x.shape[-1], (None, "conv"), name="offset")(mean)
        normal = GroupNorm(self.groups, affine=False)(x.astype(jnp.float32))
        return (normal * scale[:, None, None] + offset[:, None, None]).astype(x.dtype)


def double(x: jax.Array) -> jax.Array:
    """Each pixel repeated twice along H and W: [B, H, W, C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def spread(x: jax.Array) -> jax.Array:
    """Fourths of the channels to the pixels of a square, row by row: [B, H, W, 4 F] -> [B, 2 H, 2 W, F]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)
