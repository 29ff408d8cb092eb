"""Judges overlapping patches of a picture (pix2pix, arXiv 1611.07004), as VQGAN trains against."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.limits import SIZE, Between, OneOf
from vargen.tokenizers.discriminators.among import GhostBatchNorm
from vargen.tokenizers.layers import GroupNorm, conv


class Patch(nn.Module):
    """Judges overlapping patches of a picture by convolutions of 4x4.

    The original normalises by the whole batch of a device, here by at most eight pictures that follow each other.

    Attributes:
      width: channels after the first layer; doubled by each of the next, up to eightfold.
      layers: convolutions of stride 2; 3 judge patches of 70x70 pixels.
      norm: of all layers but the first and the last: by the batch, by groups of channels, or none.
      spectral: whether kernels are divided by their largest singular values (arXiv 1802.05957).
    """

    width: Annotated[int, SIZE] = 64
    layers: Annotated[int, Between(1, 16)] = 3
    norm: Annotated[str, OneOf("batch", "group", "none")] = "batch"
    spectral: bool = False

    weights = ""

    def frozen(self) -> dict[str, jax.ShapeDtypeStruct]:
        """None."""
        return {}

    @nn.compact
    def __call__(self, images: jax.Array, frozen: Mapping[str, jax.Array]) -> jax.Array:
        """[B, H, W, C] in [-1, 1] -> logits float32 [B, h, w, 1], high for real.

        Raises:
          UserError: the pictures are too small for so many layers.
        """
        smallest, side = 3 * 2**self.layers, min(images.shape[1:3])
        if side < smallest:
            raise UserError(
                "config field tokenizer_training.losses.discriminator.layers: expected images of "
                f"{smallest} pixels a side or more for {self.layers} layers, found {side}"
            )
        init, dtype = nn.initializers.normal(0.02), jnp.float32
        x = images.astype(dtype)
        for i in range(self.layers + 1):
            stride = 2 if i < self.layers else 1
            features = self.width * min(2**i, 8)
            shape = dict(stride=stride, padding=[(1, 1)] * 2, dtype=dtype, init=init)
            biased = not i or self.norm != "batch"  # a bias before that norm would change nothing
            x = conv(features, 4, **shape, bias=biased, name=f"conv{i}")(x)
            if i and self.norm != "none":
                norm = GroupNorm if self.norm == "group" else functools.partial(GhostBatchNorm, eps=1e-5)
                x = norm(name=f"norm{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        return conv(1, 4, padding=[(1, 1)] * 2, dtype=dtype, name="conv_out", init=init)(x)
