"""Registers that look across at patches, and patches that look across at registers (GigaTok, arXiv 2504.08736).

An encoder of convolutions gives patches, a decoder of convolutions takes them. Between the two there are transformers
whose rows look at each other and then at what they read, which stays as it is (DETR, arXiv 2005.12872): places are
added to queries and keys alone, in every block. Registers begin as averages of patches: the first two of all of them,
the next two of one half each, the next four of the quarters, and so on; what becomes patches begins as the first
register.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import parts
from vargen.errors import UserError
from vargen.layers import Dense, Mlp
from vargen.limits import COUNT, EPS, SIZE, Above, Between, check_heads
from vargen.mixers.primitives import step_attention
from vargen.sharding import by_batch
from vargen.tokenizers import conv
from vargen.tokenizers.autoencoder import flat
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.layers import conv as convolution
from vargen.tokenizers.merging import cells, means
from vargen.tokenizers.reading import check_shown, in_two
from vargen.tokenizers.transformer import XAVIER, Sizes, norm, one_after_another, table

STEM = types.MappingProxyType(
    dict(
        name="conv",
        projection=0,
        encoder_attention=False,
        decoder_attention=False,
        middle_attention=False,
        adaptive=True,
        spread=True,
    )
)
OUTER = dict(conv=conv.build)
LAYERS = Between(0, 4096)


class Look(nn.Module):
    """Attention of rows at others, or at themselves: queries, keys and values are of different rows.

    Attributes:
      width: D.
      heads: H.
      dtype: of the computation.
    """

    width: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, asking: jax.Array, asked: jax.Array, told: jax.Array) -> jax.Array:
        """[B, N, D] at [B, M, D], of which the values are [B, M, D] -> [B, N, D]."""
        dim = self.width // self.heads

        def project(name: str, rows: jax.Array) -> jax.Array:
            y = Dense(self.width, ("embed", "heads"), XAVIER.kernel(), dtype=self.dtype, name=name)(rows)
            return y.reshape(*rows.shape[:-1], self.heads, dim)

        q, k, v = project("query", asking), project("key", asked), project("value", told)
        times = (np.zeros(rows.shape[1], np.int32) for rows in (asking, asked))
        y = step_attention(q, k, v, *times, scale=1 / math.sqrt(dim)).reshape(asking.shape)
        return Dense(self.width, ("heads", "embed"), XAVIER.kernel(), dtype=self.dtype, name="out")(y)


class AcrossBlock(nn.Module):
    """Rows look at each other, then at what they read, then pass an MLP, each after a norm.

    Attributes:
      sizes: of the block.
      dtype: of the computation.
    """

    sizes: Sizes
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, read: jax.Array, places: jax.Array, others: jax.Array) -> jax.Array:
        """Rows [B, N, D] and what they read [B, M, D], with places [N, D] and [M, D] -> [B, N, D]."""
        sizes = self.sizes
        y = norm(sizes, "norm_1")(by_batch(x))
        x = x + Look(sizes.width, sizes.heads, self.dtype, name="self")(y + places, y + places, y)
        y = norm(sizes, "norm_2")(x)
        x = x + Look(sizes.width, sizes.heads, self.dtype, name="across")(y + places, read + others, read)
        y, init = norm(sizes, "norm_3")(x), XAVIER.kernel()
        hidden = int(sizes.width * sizes.mlp_ratio)
        return x + Mlp(hidden, sizes.mlp, init, init, dtype=self.dtype, name="feed_forward")(y)


class Across(nn.Module):
    """L blocks, one after another; the attributes are `AcrossBlock`'s. Parameters are stacked; loops go over them."""

    sizes: Sizes
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, read: jax.Array, places: jax.Array, others: jax.Array) -> jax.Array:
        """As `AcrossBlock`'s."""
        block = AcrossBlock(self.sizes, self.dtype, parent=None)
        rows = (y.astype(self.dtype) for y in (x, read, places, others))
        return one_after_another(self, block, self.sizes.layers, *rows)


class AcrossEncoder(nn.Module):
    """Images to registers.

    Attributes:
      out_channels: channels of the result.
      tokens: K.
      stem: the encoder from pixels to patches.
      grid: (h, w) of these.
      sizes: of the blocks.
      dtype: of the computation.
    """

    out_channels: int
    tokens: int
    stem: nn.Module
    grid: tuple[int, int]
    sizes: Sizes
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C_image] -> float32 [B, 1, K, out_channels]."""
        width, dtype = self.sizes.width, self.dtype
        x = norm(self.sizes, "norm_in")(flat(self.stem(images)))
        read = Dense(width, (None, "embed"), XAVIER.kernel(), dtype=dtype, name="rows_in")(x.astype(dtype))
        start = means(read.reshape(len(read), *self.grid, -1), levels(self.tokens), False)
        x = Dense(width, (None, "embed"), XAVIER.kernel(), dtype=dtype, name="registers")(start)
        places = [table(self, f"{name}_places", n, width) for name, n in self._rows()]
        x = norm(self.sizes, "norm_out")(Across(self.sizes, dtype, name="blocks")(x, read, *places))
        x = Dense(self.out_channels, ("embed", "latent"), dtype=dtype, name="latents_out")(x)
        return x.astype(jnp.float32)[:, None]

    def _rows(self) -> list[tuple[str, int]]:
        return [("own", self.tokens), ("patch", self.grid[0] * self.grid[1])]


class AcrossDecoder(nn.Module):
    """Registers to images.

    Attributes:
      tokens: K.
      pixels: the decoder from patches to pixels.
      channels: that it takes.
      grid: (h, w) of the patches.
      sizes: of the blocks.
      shown_after: see `build`.
      dtype: of the computation.
    """

    tokens: int
    pixels: nn.Module
    channels: int
    grid: tuple[int, int]
    sizes: Sizes
    shown_after: int
    dtype: Any

    @nn.compact
    def features(self, latents: jax.Array) -> jax.Array:
        """[B, 1, K, C] -> what the last layer of `pixels` takes."""
        width, dtype, count = self.sizes.width, self.dtype, self.grid[0] * self.grid[1]
        names = ("latent", "embed")
        x = Dense(self.channels, names, XAVIER.kernel(), dtype=dtype, name="latents_in")(flat(latents))
        x = norm(self.sizes, "norm_in")(x)
        read = Dense(width, (None, "embed"), XAVIER.kernel(), dtype=dtype, name="rows_in")(x)
        places = [
            table(self, name, n, width) for name, n in (("patch_places", count), ("places", self.tokens))
        ]
        x = jnp.broadcast_to(read[:, :1], (len(read), count, width))

        def run(own: Sizes, name: str, x: jax.Array) -> jax.Array:
            return Across(own, dtype, name=name)(x, read, *places)

        x = in_two(self.sizes, self.shown_after, (0, count), run, x)
        x = norm(self.sizes, "norm_out")(x)
        x = convolution(self.channels, dtype=dtype, name="pixels_in")(x.reshape(len(x), *self.grid, width))
        return self.pixels.features(x)

    def last(self, features: jax.Array) -> jax.Array:
        """The last layer: features of the pixels' decoder -> float32 [B, H, W, C_image]."""
        return self.pixels.last(features)

    def __call__(self, latents: jax.Array) -> jax.Array:
        """[B, 1, K, C] -> float32 [B, H, W, C_image]."""
        return self.last(self.features(latents))


def levels(tokens: int) -> tuple[int, ...]:
    """Of K registers, a power of two, how many begin as averages over cells of the same size: 1, 1, 2, 4 ..."""
    return (1, *(2**i for i in range(tokens.bit_length() - 1)))


def build(
    image_size: tuple[int, int],
    image_channels: int,
    latent_channels: int,
    moments: int,
    dtype: Any,
    tokens: Annotated[int, SIZE] = 32,
    stem: Mapping[str, Any] = STEM,
    stem_channels: Annotated[int, SIZE] = 256,
    width: Annotated[int, SIZE] = 128,
    layers: Annotated[int, COUNT] = 4,
    heads: Annotated[int, COUNT] = 4,
    decoder_width: Annotated[int, Between(0, 2**20)] = 0,
    decoder_layers: Annotated[int, LAYERS] = 0,
    decoder_heads: Annotated[int, LAYERS] = 0,
    mlp_ratio: Annotated[float, Above(0)] = 4.0,
    eps: Annotated[float, EPS] = 1e-5,
    shown_after: Annotated[int, LAYERS] = 0,
) -> Codec:
    """The part "across" of the axis "tokenizer.encoder".

    Args:
      image_size, image_channels: of the images, (H, W) and C.
      latent_channels: channels that the decoder takes.
      moments: 1, or 2 where the encoder gives mean and log-variance.
      dtype: of the computation.
      tokens: K, how many registers, a power of two.
      stem: the encoder part "conv" between pixels and patches, and its decoder in the way back.
      stem_channels: of a patch.
      width, layers, heads: D, L and H of the encoder's blocks.
      decoder_width, decoder_layers, decoder_heads: of the decoder's; 0: as the encoder's.
      mlp_ratio: inner width of their position-wise networks over D.
      eps: of the norms.
      shown_after: after how many blocks of the decoder rows of patches are shown to a loss, `losses.semantic_at`
        "shown"; 0: none.

    Raises:
      UserError: a width that doesn't divide into heads; registers that aren't a power of two, or have cells that don't
        divide the patches; no block after those before patches are shown.
    """
    place = "tokenizer.encoder"
    outer = parts.build(
        OUTER,
        stem,
        f"{place}.stem",
        image_size=image_size,
        image_channels=image_channels,
        latent_channels=stem_channels,
        moments=1,
        dtype=dtype,
    )
    grid = "x".join(map(str, outer.grid))
    if tokens & (tokens - 1) or any(
        h % r or w % c for (h, w) in [outer.grid] for r, c in map(cells, levels(tokens))
    ):
        raise UserError(
            f"config field {place}.tokens: expected a power of two whose cells divide {grid} patches, found {tokens}"
        )
    check_heads(heads, width, f"{place}.heads")
    sizes = Sizes(width, layers, heads, mlp_ratio=mlp_ratio, eps=eps)
    own = dict(width=decoder_width, layers=decoder_layers, heads=decoder_heads)
    inner = dataclasses.replace(sizes, **{k: v for k, v in own.items() if v})
    check_heads(inner.heads, inner.width, f"{place}.decoder_heads")
    check_shown(shown_after, inner.layers, f"{place}.shown_after")
    return Codec(
        AcrossEncoder(moments * latent_channels, tokens, outer.encoder, outer.grid, sizes, dtype),
        AcrossDecoder(tokens, outer.decoder, stem_channels, outer.grid, inner, shown_after, dtype),
        (1, tokens),
        latent_channels,
        f"pixels/{outer.last_name}",
    )
