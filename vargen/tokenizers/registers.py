"""One-dimensional tokens: a transformer writes an image into K rows of its own, registers, and another reads them.

TiTok (arXiv 2406.07550) reads all of them at once; FlexTok (2502.13967) and Semanticist (2503.08685) let registers look
at earlier ones alone and keep the first few of them in training (nested dropout, arXiv 1402.0915), so that any prefix
is a picture; ResTok (2601.03955) has levels of them. What reads them is a part of its own: "direct", or "flow".
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
from vargen.layers import Dense
from vargen.limits import COUNT, EPS, SIZE, Above, Between, OneOf, check_heads
from vargen.tokenizers import denoising, diffusing, patches, reading
from vargen.tokenizers.autoencoder import flat
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.reading import Ends
from vargen.tokenizers.transformer import Rows, Sizes, Transformer, norm, places, table

DECODERS = dict(direct=reading.build_direct, diffusion=diffusing.build_diffusion, flow=denoising.build_flow)
DIRECT = types.MappingProxyType(dict(name="direct"))


class Registers(nn.Module):
    """Images to registers.

    Attributes:
      ends: of the codec.
      moments: 1, or 2 where there are mean and log-variance.
      sees: see `build`.
      standard: see `build`.
      scrambled: see `build`.
      abreast: see `build`.
      norm_out: see `build`.
      stem: the encoder before it, of pixels; None for a product of each patch.
    """

    ends: Ends
    moments: int
    sees: str
    standard: bool
    scrambled: bool
    abreast: int
    norm_out: bool
    stem: nn.Module | None

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C_image], or clips [B, T, H, W, C_image] -> float32 [B, 1, K, moments * C], or [B, k, k, ...] where
        they lie on a square."""
        ends, sizes, dtype = self.ends, self.ends.sizes, self.ends.dtype
        if self.stem is None:
            x = patches.apart((images.astype(jnp.float32) + 1) / 2 if ends.unit else images, ends.sides)
        else:
            x = flat(self.stem(images))
        own = places(self, x.shape[1], sizes.width, ends.axes) if ends.placed else None
        x = Rows(sizes.width, dtype, ends.axes, name="patches")(x.astype(dtype), own)

        def rows(name, count):
            return jnp.broadcast_to(
                table(self, name, count, sizes.width).astype(dtype), (len(x), count, sizes.width)
            )

        before = [rows("anchor", 1), x] if ends.anchor else [x]
        count = self.abreast * ends.registers
        registers = rows("registers", count)
        if own is not None:
            on_square = patches.resampled(own, ends.patches, ends.grid).astype(dtype)
            registers = registers + jnp.tile(on_square, (self.abreast, 1))
        x = jnp.concatenate([*before, registers], axis=1)
        x = norm(sizes, "norm_in")(x) if ends.norm_in else x
        before = x.shape[1] - count
        x = Transformer(sizes, self._times(before), False, dtype, name="blocks")(x)
        x = norm(sizes, "norm_out")(x[:, before:]) if self.norm_out else x[:, before:]
        if self.scrambled:
            x = x.reshape(len(x), sizes.width, count).swapaxes(1, 2)
        channels = self.moments * ends.latent_channels // self.abreast
        out = Dense(channels, ("embed", "latent"), dtype=dtype, name="latents_out")
        x = out(x).astype(jnp.float32)
        if self.standard:
            centred = x - jnp.mean(x, axis=-1, keepdims=True)
            x = centred * jax.lax.rsqrt(jnp.var(x, axis=-1, keepdims=True, ddof=1) + 1e-12)
        x = x.reshape(len(x), self.abreast, ends.registers, self.moments, -1)
        return jnp.moveaxis(x, 1, 3).reshape(len(x), *ends.grid, -1)

    def _times(self, before: int) -> tuple[int, ...]:
        """Of all rows: patches at 0, registers with them or later."""
        levels = [n * self.abreast for n in self.ends.levels]
        times = dict(
            all=np.zeros(sum(levels)),
            causal=np.arange(1, sum(levels) + 1),
            levels=np.repeat(np.arange(1, len(levels) + 1), levels),
        )
        return (0,) * before + tuple(int(t) for t in times[self.sees])


def build(
    image_size: tuple[int, ...],
    image_channels: int,
    latent_channels: int,
    moments: int,
    dtype: Any,
    tokens: Annotated[int | tuple[int, ...], SIZE] = 32,
    patch: Annotated[int, SIZE] = 16,
    patch_frames: Annotated[int, SIZE] = 1,
    sees: Annotated[str, OneOf("all", "causal", "levels")] = "all",
    nested: Annotated[str, OneOf("none", "uniform", "powers", "levels")] = "none",
    dropped: Annotated[str, OneOf("placed", "alike")] = "placed",
    square: bool = False,
    abreast: Annotated[int, Between(1, 64)] = 1,
    placed: bool = False,
    standard: bool = False,
    scrambled: bool = False,
    unit: bool = False,
    anchor: bool = False,
    norm_in: bool = False,
    norm_out: bool = True,
    places: Annotated[str, OneOf("table", "axes")] = "table",
    width: Annotated[int, SIZE] = 128,
    layers: Annotated[int, COUNT] = 4,
    heads: Annotated[int, COUNT] = 4,
    mlp: Annotated[str, OneOf("gelu", "gelu_tanh", "swiglu", "geglu")] = "gelu",
    mlp_ratio: Annotated[float, Above(0)] = 4.0,
    norm: Annotated[str, OneOf("layer", "rms")] = "layer",
    bias: bool = True,
    qk_norm: Annotated[str, OneOf("none", "layer", "rms")] = "none",
    logit_scale: Annotated[float, Between(0, 100)] = 1.0,
    eps: Annotated[float, EPS] = 1e-6,
    affine: bool = True,
    stem: Mapping[str, Any] | None = None,
    stem_channels: Annotated[int, SIZE] = 256,
    decoder: Mapping[str, Any] = DIRECT,
) -> Codec:
    """The part "registers" of the axis "tokenizer.encoder".

    Args:
      image_size, image_channels: of the images, (H, W) and C; of clips (T, H, W) and C.
      latent_channels: channels that the decoder takes.
      moments: 1, or 2 where the encoder gives mean and log-variance.
      dtype: of the computation.
      tokens: K, how many registers; or of each level.
      patch: pixels per side of a patch.
      patch_frames: of clips, how many frames are a patch together (LARP's, arXiv 2410.21264).
      sees: which rows registers see beside the patches: "all", which then see them too; "causal", those before them;
        "levels", those of their own level and of the levels before. In the last two patches see each other alone.
      nested: how many registers, the first ones, are kept of an example in training: all ("none"); from 1 to K, one
        number as likely as another; of these the powers of 2 and K; or whole levels.
      dropped: what stands for the others: a learned row and the place of each ("placed"), or the row without ("alike").
      square: registers lie on a square, row by row, as quantisers that resample latents need it (ImageFolder, arXiv
        2410.01756).
      abreast: how many such squares of registers there are; latents of the same place in each lie side by side in
        channels, as products of quantisers take them (ImageFolder).
      placed: registers on a square have the places of the patches too, resampled; in a direct decoder nothing but these
        and one learned row for all, and with an anchor a second one that has this row.
      standard: a latent's numbers are shifted and scaled to mean 0 and variance 1.
      scrambled: number d of register n is number d K + n of all K registers' D numbers in a row, before the product
        that makes latents of them: TiTok's first published weights need it.
      unit: pixels lie from 0 to 1, not from -1 to 1, where the encoder takes products of patches, and where a direct
        decoder gives them.
      anchor: a row that nothing is read from stands before the patches.
      norm_in: rows are normalised before the blocks.
      norm_out: registers are normalised after the encoder's blocks, as what comes of the decoder's always is.
      places: what tells patches from each other, learned: a row for each ("table"), or a sum of one for its row of the
        image and one for its column, of clips for its frame too ("axes").
      width, layers, heads: D, L and H of the blocks.
      mlp: kind of their position-wise network (`layers.Mlp`).
      mlp_ratio: its inner width over D.
      norm: of the blocks.
      bias: whether their products have biases.
      qk_norm: of queries and keys (`mixers.attention.Attention`).
      logit_scale: factor on the attention's logits over 1/sqrt(D/H).
      eps: of the norms.
      affine: whether norms, those of queries and keys too, have a learned scale (and bias).
      stem: an encoder part between pixels and patches (GigaTok's are of convolutions, arXiv 2504.08736), and its
        decoder in the way back; none: products.
      stem_channels: of what it gives.
      decoder: what makes images of them, a part of `DECODERS`.

    Raises:
      UserError: the image does not divide into patches, or the width into heads, or a stem has another grid; registers
        that can't lie on a square, or don't and are to lie abreast or have places; channels that don't divide among
        those abreast; of clips, places for registers or another decoder than direct.
    """
    grid = patches.grid(image_size, patch, frames=patch_frames)
    for name, found, expected in (
        ("placed", placed, False),
        ("decoder", decoder.get("name", "direct"), "direct"),
    ):
        if len(grid) > 2 and found != expected:
            raise UserError(
                f"config field tokenizer.encoder.{name}: expected {expected} for clips, found {found}"
            )
    levels = (tokens,) if isinstance(tokens, int) else tuple(tokens)
    if square and (len(levels) > 1 or math.isqrt(levels[0]) ** 2 != levels[0] or nested != "none"):
        found = f"tokens {tokens}" if nested == "none" else f"nested {nested}"
        raise UserError(
            "config field tokenizer.encoder.square: needs a square number of registers, none of them left out, found "
            f"{found}"
        )
    for name, found in (("abreast", abreast - 1 and abreast), ("placed", placed)):
        if found and not square:
            raise UserError(
                f"config field tokenizer.encoder.{name}: needs registers on a square, square=True, found {found}"
            )
    if latent_channels % abreast:
        raise UserError(
            f"config field tokenizer.encoder.abreast: expected a divisor of {latent_channels} channels, found {abreast}"
        )
    check_heads(heads, width, "tokenizer.encoder.heads")
    sizes = Sizes(width, layers, heads, mlp, mlp_ratio, norm, bias, qk_norm, logit_scale, eps, affine)
    ends = Ends(
        image_channels=image_channels,
        patches=grid,
        patch=patch,
        patch_frames=patch_frames,
        levels=levels,
        square=square,
        placed=placed,
        latent_channels=latent_channels,
        stem=None,
        nested=nested,
        dropped=dropped,
        places=places,
        unit=unit,
        anchor=anchor,
        norm_in=norm_in,
        sizes=sizes,
        dtype=dtype,
    )
    if stem is not None:
        ends = dataclasses.replace(ends, stem=ends.outer(stem, stem_channels, "stem"))
    encoder = Registers(
        ends, moments, sees, standard, scrambled, abreast, norm_out, ends.stem and ends.stem.encoder
    )
    return parts.build(DECODERS, decoder, "tokenizer.encoder.decoder", ends=ends, encoder=encoder)
