"""A patch discriminator (pix2pix, arXiv 1611.07004), as VQGAN trains against."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.tokenizers.layers import GroupNorm, conv


class Discriminator(nn.Module):
    """Judges overlapping patches of an image.

    The original normalises by batch statistics, which are state, let the examples of a batch see each other
    and differ between one device and many; group normalisation has none of that, and the parameters stay all
    there is.

    Attributes:
      width: channels after the first layer; doubled by each of the next, up to eightfold.
      layers: convolutions of stride 2.
      dtype: of the computation.
    """

    width: int = 64
    layers: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] in [-1, 1] -> logits float32 [B, h, w, 1], high for real.

        Raises:
          UserError: the images are too small for so many layers.
        """
        smallest = 3 * 2**self.layers
        if min(images.shape[1:3]) < smallest:
            side = min(images.shape[1:3])
            raise UserError(
                "config field tokenizer_training.losses.discriminator_layers: expected images of "
                f"{smallest} pixels a side or more for {self.layers} "
                f"layers, found {side}"
            )
        init = nn.initializers.normal(0.02)
        x = images.astype(self.dtype)
        for i in range(self.layers + 1):
            stride = 2 if i < self.layers else 1
            features = self.width * min(2**i, 8)
            x = conv(
                features, 4, stride=stride, padding=[(1, 1)] * 2, dtype=self.dtype, name=f"conv{i}", init=init
            )(x)
            if i:
                x = GroupNorm(name=f"norm{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        x = conv(1, 4, padding=[(1, 1)] * 2, dtype=self.dtype, name="conv_out", init=init)(x)
        return x.astype(jnp.float32)
