"""Judges a picture as a whole by residual blocks that halve it (StyleGAN 2, arXiv 1912.04958, figure 7c)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.layers import Dense
from vargen.limits import SIZE, Between
from vargen.tokenizers.discriminators.among import groups
from vargen.tokenizers.layers import conv

SMALLEST = 8  # pixels a side: a picture is halved while it has as many
BLUR = np.array([1, 2, 1], np.float32) / 4
# Given, so that it is XLA's own convolution, which gradients of gradients go through fast.
AROUND = [(1, 1)] * 2


class StyleGAN(nn.Module):
    """Judges a picture as a whole: residual blocks that blur and halve it down to 4x4 pixels.

    The form is that of LlamaGen's tokenizers (FoundationVision/LlamaGen): kernels as they are, without the gains at
    runtime of StyleGAN's own. With `deviation` examples see each other, as the original has it: pictures of a set lie a
    share of the batch apart, and are the same ones on any number of devices.

    Attributes:
      width: channels at the picture's own size; doubled by each halving, up to `widest`.
      widest: channels at most.
      deviation: pictures in a set whose standard deviation is one more channel at the end, which shows a lack of
        variety (arXiv 1710.10196, section 3); 0: no such channel. A batch that it doesn't divide has smaller sets.
      spectral: whether kernels are divided by their largest singular values (arXiv 1802.05957).
    """

    width: Annotated[int, SIZE] = 64
    widest: Annotated[int, SIZE] = 512
    deviation: Annotated[int, Between(0, 4096)] = 0
    spectral: bool = False

    weights = ""

    def frozen(self) -> dict[str, jax.ShapeDtypeStruct]:
        """None."""
        return {}

    @nn.compact
    def __call__(self, images: jax.Array, frozen: Mapping[str, jax.Array]) -> jax.Array:
        """[B, H, W, C] in [-1, 1] -> logits float32 [B, 1], high for real.

        Raises:
          UserError: the pictures are too small.
        """
        side = min(images.shape[1:3])
        if side < SMALLEST:
            raise UserError(
                f"config field tokenizer_training.losses.discriminator: stylegan needs images of {SMALLEST} pixels a "
                f"side or more, found {side}"
            )
        init, features = nn.initializers.he_normal(), min(self.width, self.widest)

        def over(x: jax.Array, features: int, name: str, size: int = 3, stride: int = 1) -> jax.Array:
            padding = AROUND if size == 3 else [(0, 0)] * 2
            layer = conv(
                features, size, stride=stride, padding=padding, dtype=jnp.float32, name=name, init=init
            )
            return layer(x)

        x = nn.leaky_relu(over(images.astype(jnp.float32), features, "conv_in"), 0.2)
        block = 0
        while min(x.shape[1:3]) >= SMALLEST:
            features, name = min(2 * features, self.widest), f"block{block}"
            y = nn.leaky_relu(over(x, features, f"{name}_conv0"), 0.2)
            y = nn.leaky_relu(over(y, features, f"{name}_conv1"), 0.2)
            y = over(blurred(y), features, f"{name}_conv2", stride=2)
            x = (y + over(x, features, f"{name}_skip", size=1, stride=2)) * 2**-0.5
            block += 1
        if self.deviation:
            x = with_deviation(x, self.deviation)
        x = nn.leaky_relu(over(x, features, "conv_out"), 0.2).reshape(len(x), -1)
        x = Dense(features, names=(None, "conv"), kernel_init=init, name="hidden")(x)
        return Dense(1, names=("conv", None), kernel_init=init, name="out")(nn.leaky_relu(x, 0.2))


def blurred(x: jax.Array) -> jax.Array:
    """[B, H, W, C], each channel smoothed by (1, 2, 1) / 4 along H and W, mirrored at the borders."""
    for axis in (1, 2):
        around = [(0, 0)] * 4
        around[axis] = (1, 1)
        y, size = jnp.pad(x, around, mode="reflect"), x.shape[axis]
        x = sum(b * jax.lax.slice_in_dim(y, i, i + size, axis=axis) for i, b in enumerate(BLUR))
    return x


def with_deviation(x: jax.Array, most: int) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, C + 1]: the standard deviation over the pictures of a set, mean over places and
    channels, as a channel. Sets of at most so many."""
    batch, height, width, _ = x.shape
    size = groups(batch, most)
    sets = x.reshape(size, batch // size, -1)
    variance = jnp.mean(jnp.square(sets - sets.mean(axis=0)), axis=0)
    means = jnp.mean(jnp.sqrt(variance + 1e-8), axis=1)
    channel = jnp.broadcast_to(jnp.tile(means, size)[:, None, None, None], (batch, height, width, 1))
    return jnp.concatenate([x, channel], axis=-1)
