"""Layers of the autoencoders: convolutions, normalisation and dense maps with named axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def boxed(init: Callable, names: tuple[str | None, ...]) -> Callable:
    """An initialiser whose arrays carry logical axis names."""
    return nn.with_logical_partitioning(init, names)


def conv(
    features: int,
    size: int = 3,
    *,
    stride: int = 1,
    padding: Any = None,
    dtype: Any,
    name: str | None = None,
    init=KERNEL_INIT,
):
    """A square convolution over NHWC with bias; padding keeps the size unless given."""
    return nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding=[(size // 2, size // 2)] * 2 if padding is None else padding,
        dtype=dtype,
        kernel_init=boxed(init, (None, None, None, "conv")),
        bias_init=boxed(nn.initializers.zeros, ("conv",)),
        name=name,
    )


class Dense(nn.Module):
    """A dense map of the last axis with bias.

    Attributes:
      features: of the result.
      dtype: of the computation.
      axes: logical names of the kernel's axes.
      init: of the kernel.
    """

    features: int
    dtype: Any
    axes: tuple[str | None, str | None] = (None, "conv")
    init: Callable = KERNEL_INIT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., I] -> [..., features]."""
        kernel = self.param("kernel", boxed(self.init, self.axes), (x.shape[-1], self.features))
        bias = self.param("bias", boxed(nn.initializers.zeros, self.axes[1:]), (self.features,))
        # One matrix: on CPUs the gradient of a product with several leading axes takes twice the time.
        y = x.astype(self.dtype).reshape(-1, x.shape[-1]) @ kernel.astype(self.dtype) + bias.astype(
            self.dtype
        )
        return y.reshape(*x.shape[:-1], self.features)


class GroupNorm(nn.Module):
    """Group normalisation over (H, W, C / groups), eps 1e-6, in float32; returns the dtype of its input.

    Attributes:
      groups: number of groups; reduced to the channels where there are fewer.
    """

    groups: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, ..., C] -> [B, ..., C]."""
        channels = x.shape[-1]
        scale = self.param("scale", boxed(nn.initializers.ones, ("conv",)), (channels,))
        bias = self.param("bias", boxed(nn.initializers.zeros, ("conv",)), (channels,))
        groups = min(self.groups, channels)
        grouped = x.astype(jnp.float32).reshape(x.shape[0], -1, groups, channels // groups)
        mean = grouped.mean(axis=(1, 3), keepdims=True)
        variance = jnp.square(grouped - mean).mean(axis=(1, 3), keepdims=True)
        normal = ((grouped - mean) * jax.lax.rsqrt(variance + 1e-6)).reshape(x.shape)
        return (normal * scale + bias).astype(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation of the last axis, eps 1e-6, in float32; returns the dtype of its input."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] -> [..., C]."""
        scale = self.param("scale", boxed(nn.initializers.ones, ("embed",)), (x.shape[-1],))
        bias = self.param("bias", boxed(nn.initializers.zeros, ("embed",)), (x.shape[-1],))
        wide = x.astype(jnp.float32)
        mean = wide.mean(axis=-1, keepdims=True)
        variance = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
        return ((wide - mean) * jax.lax.rsqrt(variance + 1e-6) * scale + bias).astype(x.dtype)
