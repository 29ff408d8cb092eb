"""A decoder that sees the pixels before, within a window: the Variational Lossy Autoencoder (arXiv 1611.02731).

    p(x | z) = prod_i N(x_i; mu_i(z) + f(x_j before i and near it, mu(z)), sigma^2)

in raster order, where mu is a decoder without such a view and f a PixelCNN of masked convolutions (arXiv 1601.06759).
What the window tells of a pixel needs no code, so that the latents hold what it can't: the picture at large. The mean
squared error is this likelihood's logarithm but for a factor and a constant. The latents' own law, there a flow, is a
generator's here; of pixels the paper has binary ones and mixtures of logistic laws, here they are Gaussian.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.layers import KERNEL_INIT, Dense, logical
from vargen.limits import SIZE, AtLeast, Between
from vargen.tokenizers import patch as patches
from vargen.tokenizers.codec import Codec


class CausalConv(nn.Module):
    """A 3x3 convolution that sees the row above and what is to the left, and the pixel itself where so asked.

    Attributes:
      features: channels of the result.
      itself: whether a pixel sees itself.
      dtype: of the computation.
    """

    features: int
    itself: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, features]."""
        init = logical(KERNEL_INIT, None, None, None, "conv", dtype=self.dtype)
        kernel = self.param("kernel", init, (3, 3, x.shape[-1], self.features)).astype(self.dtype)
        seen = np.array([[1, 1, 1], [1, self.itself, 0], [0, 0, 0]], np.float32)
        kernel = kernel * seen[..., None, None].astype(self.dtype)
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names)


class PixelCNN(nn.Module):
    """Pixels from latents and the pixels before.

    Attributes:
      smooth: the decoder that makes mu.
      out_channels: of the images.
      width, layers: of the masked convolutions behind the first; each lets a pixel see one further away.
      spread: sigma of what is drawn in decoding, the same noise always; 0: the means.
      dtype: of the computation.
    """

    smooth: nn.Module
    out_channels: int
    width: int
    layers: int
    spread: float
    dtype: Any

    def setup(self) -> None:
        self.before = CausalConv(self.width, False, self.dtype)
        self.around = Dense(self.width, (None, "conv"), dtype=self.dtype)
        self.more = [CausalConv(self.width, True, self.dtype) for _ in range(self.layers)]
        self.pixel_out = Dense(
            self.out_channels, ("conv", None), nn.initializers.normal(0.02), dtype=self.dtype
        )

    @property
    def reach(self) -> int:
        """How many rows or columns away a pixel sees."""
        return 1 + self.layers

    def features(self, latents: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, h, w, C], the pixels [B, H, W, C_image] -> what `last` takes."""
        mean = self.smooth(latents)
        return self._context(images, mean, jnp.ones((1, *mean.shape[1:3], 1))), mean

    def last(self, features: tuple[jax.Array, jax.Array]) -> jax.Array:
        """The means of all pixels, each given those before: float32 [B, H, W, C_image]."""
        context, mean = features
        return mean + self.pixel_out(nn.silu(context)).astype(jnp.float32)

    def _context(self, images: jax.Array, mean: jax.Array, inside: jax.Array) -> jax.Array:
        """[B, H, W, width], zero where not `inside` the picture [1, H, W, 1], as behind its border."""
        inside = inside.astype(self.dtype)
        x = (self.before(images.astype(self.dtype)) + self.around(mean)) * inside
        for layer in self.more:
            x = (x + layer(nn.silu(x))) * inside
        return x

    def draw(self, latents: jax.Array) -> jax.Array:
        """Pixel after pixel: [B, h, w, C] -> float32 [B, H, W, C_image]."""
        mean, r = self.smooth(latents), self.reach
        batch, height, width, channels = mean.shape
        pads = [(0, 0), (r, 0), (r, r), (0, 0)]
        inside = jnp.pad(jnp.ones((1, height, width, 1)), pads)
        around = jnp.pad(mean, pads)
        noise = jnp.zeros((height, width, channels))
        if self.spread:
            noise = self.spread * jax.random.normal(jax.random.key(0), noise.shape)

        def near(x, i, j):
            return jax.lax.dynamic_slice(x, (0, i, j, 0), (x.shape[0], r + 1, 2 * r + 1, x.shape[-1]))

        def step(module, pixels, at):
            i, j = at
            context = module._context(near(pixels, i, j), near(around, i, j), near(inside, i, j))
            own = context[:, r:, r : r + 1], near(around, i, j)[:, r:, r : r + 1]
            pixel = module.last(own) + noise[i, j]
            return jax.lax.dynamic_update_slice(pixels, pixel, (0, i + r, j + r, 0)), None

        places = jnp.asarray(np.indices((height, width)).reshape(2, -1))
        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        pixels, _ = scan(self, jnp.zeros_like(around), tuple(places))
        return pixels[:, r:, r : r + width]

    def __call__(self, latents: jax.Array) -> jax.Array:
        """Touches all parameters (for initialisation): the means where nothing is known of the pixels."""
        mean = self.smooth(latents)
        return self.last((self._context(jnp.zeros_like(mean), mean, jnp.ones((1, 1, 1, 1))), mean))


@dataclasses.dataclass(frozen=True)
class PixelCodec(Codec):
    """A codec whose decoder is shown the pixels in training, and draws them one after another in decoding."""

    def decode(self, params: dict, latents: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """[B, h, w, C] -> float32 [B, H, W, C_image], as of `PixelCNN.draw`."""
        return self.decoder.apply({"params": params["decoder"]}, latents, method="draw")

    def draft(
        self, params: dict, latents: jax.Array, known: jax.Array | None, images: jax.Array, key: jax.Array
    ) -> tuple[Any, None]:
        """What the decoder's last layer takes, given the pixels; see `Codec.draft`."""
        found = self.decoder.apply({"params": params["decoder"]}, latents, images, method="features")
        return found, None


def build(
    image_size: tuple[int, int],
    image_channels: int,
    latent_channels: int,
    moments: int,
    dtype: Any,
    patch: Annotated[int, SIZE] = 4,
    width: Annotated[int, SIZE] = 128,
    blocks: Annotated[int, Between(0, 4096)] = 2,
    token_width: Annotated[int, SIZE] = 64,
    channel_width: Annotated[int, SIZE] = 256,
    window_width: Annotated[int, SIZE] = 32,
    window_layers: Annotated[int, Between(0, 64)] = 1,
    spread: Annotated[float, AtLeast(0)] = 0.0,
) -> PixelCodec:
    """The part "pixel_cnn" of the axis "encoder": `patch`, and a decoder that sees the pixels before.

    Args:
      image_size, image_channels: of the images, (H, W) and C.
      latent_channels: channels that the decoder takes.
      moments: 1, or 2 where the encoder gives mean and log-variance.
      dtype: of the computation.
      patch, width, blocks, token_width, channel_width: of the encoder and of what makes mu, as of the part "patch".
      window_width: channels of the masked convolutions.
      window_layers: of these behind the first; a pixel sees as many rows and columns away, and one more.
      spread: deviation of the noise in decoding, the same always; 0: each pixel is its mean.

    Raises:
      UserError: the image does not divide into patches.
    """
    ends = patches.build(
        image_size,
        image_channels,
        latent_channels,
        moments,
        dtype,
        patch,
        width,
        blocks,
        token_width,
        channel_width,
    )
    return PixelCodec(
        encoder=ends.encoder,
        decoder=PixelCNN(ends.decoder, image_channels, window_width, window_layers, spread, dtype),
        grid=ends.grid,
        latent_channels=latent_channels,
        last_name="pixel_out",
    )
