"""One-dimensional tokens: a transformer writes an image into K rows of its own, registers, and another reads them.

TiTok (arXiv 2406.07550) reads all of them at once; FlexTok (2502.13967) and Semanticist (2503.08685) let registers look
at earlier ones alone and keep the first few of them in training (nested dropout, arXiv 1402.0915), so that any prefix
is a picture; ResTok (2601.03955) has levels of them, which begin as means of patches, and merges these from stage to
stage. What reads them is a part of its own: "direct", or "flow".
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
from vargen.layers import KERNEL_INIT, Dense
from vargen.limits import COUNT, EPS, SIZE, Above, Between, OneOf, check_heads
from vargen.tokenizers import diffusing, direct, flowing, merging, patches
from vargen.tokenizers.autoencoder import flat
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.reading import LAYERS, Ends, Patches, check_turned
from vargen.tokenizers.transformer import (
    EachLevel,
    Rows,
    Sizes,
    Transformer,
    diagonal,
    lattice,
    norm,
    places,
    table,
)

DECODERS = dict(direct=direct.build_direct, diffusion=diffusing.build_diffusion, flow=flowing.build)
DIRECT = types.MappingProxyType(dict(name="direct"))
NEEDED = dict(  # by options that others exclude
    pictures="pictures, no clips",
    sees="sees causal or levels",
    anchor="anchor=False",
    placed="placed=False",
    abreast="abreast=1",
    decoder="the decoder direct",
    stages="stages=1",
    rank="rank=0",
    latent_bias="latent_bias=True",
)


class Registers(nn.Module):
    """Images to registers.

    Attributes:
      ends: of the codec.
      moments: 1, or 2 where there are mean and log-variance.
      sees: see `build`.
      standard: see `build`.
      scrambled: see `build`.
      abreast: see `build`.
      norm_patches: see `build`.
      norm_out: see `build`.
      rank: see `build`.
      begins: see `build`.
      stages: see `build`.
      finer: see `build`.
      stem: the encoder before it, of pixels; None for a product of each patch.
    """

    ends: Ends
    moments: int
    sees: str
    standard: bool
    scrambled: bool
    abreast: int
    norm_patches: bool
    norm_out: bool
    rank: int
    begins: str
    stages: int
    finer: str
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
        x = Rows(sizes.width, dtype, ends.axes, not ends.rotary, name="patches")(x.astype(dtype), own)
        x = norm(sizes, "norm_patches")(x) if self.norm_patches else x

        def rows(own):
            return jnp.broadcast_to(own.astype(dtype), (len(x), *own.shape))

        count = self.abreast * ends.registers
        if self.rank:
            few = table(self, "registers", count, self.rank, 1.0)
            registers = rows(Dense(sizes.width, (None, "embed"), dtype=dtype, name="registers_in")(few))
        elif self.begins == "table":
            registers = rows(table(self, "registers", count, sizes.width))
        else:
            on_grid = x.reshape(len(x), *ends.patches, -1)
            registers = merging.means(on_grid, ends.levels, self.begins == "residuals")
            own_rows = table(self, "levels", len(ends.levels), sizes.width)
            registers = registers + merging.repeated(own_rows, ends.levels).astype(dtype)
            x = x + table(self, "finest", 1, sizes.width).astype(dtype)
        before = [rows(table(self, "anchor", 1, sizes.width)), x] if ends.anchor else [x]
        if own is not None:
            on_square = patches.resampled(own, ends.patches, ends.grid).astype(dtype)
            registers = registers + jnp.tile(on_square, (self.abreast, 1))
        x = jnp.concatenate([*before, registers], axis=1)
        x = norm(sizes, "norm_in")(x) if ends.norm_in else x
        before = x.shape[1] - count
        if self.stages > 1:
            options = self.stages, self.finer == "residuals", dtype
            x = merging.Stages(sizes, ends.patches, self._times(0), *options, name="blocks")(x)
            height, width = ends.patches[0], ends.patches[1] >> self.stages - 1
            Patches(0, height * width, (height, width), name="merged")(x)
            before = x.shape[1] - count
        else:
            coords = ends.alone(int(ends.anchor), count)
            if ends.places == "rotary":
                coords = lattice(0, ends.patches) + diagonal(before, count)
            x = Transformer(sizes, self._times(before), False, dtype, coords=coords, name="blocks")(x)
        x = norm(sizes, "norm_out")(x[:, before:]) if self.norm_out else x[:, before:]
        if self.scrambled:
            x = x.reshape(len(x), sizes.width, count).swapaxes(1, 2)
        channels, names = self.moments * ends.latent_channels // self.abreast, ("embed", "latent")
        if ends.apart:
            out = EachLevel(ends.levels, channels, names, KERNEL_INIT, dtype, name="latents_out")
        else:
            out = Dense(channels, names, bias=ends.latent_bias, dtype=dtype, name="latents_out")
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
    nested_least: Annotated[int, SIZE] = 1,
    nested_rate: Annotated[float, Between(0, 1)] = 0.0,
    dropped: Annotated[str, OneOf("placed", "alike", "latent")] = "placed",
    begins: Annotated[str, OneOf("table", "means", "residuals")] = "table",
    stages: Annotated[int, Between(1, 16)] = 1,
    finer: Annotated[str, OneOf("whole", "residuals")] = "residuals",
    apart: bool = False,
    square: bool = False,
    abreast: Annotated[int, Between(1, 64)] = 1,
    placed: bool = False,
    standard: bool = False,
    scrambled: bool = False,
    unit: bool = False,
    anchor: bool = False,
    norm_in: bool = False,
    norm_patches: bool = False,
    norm_out: bool = True,
    rank: Annotated[int, LAYERS] = 0,
    latent_bias: bool = True,
    places: Annotated[str, OneOf("table", "axes", "rotary", "rotary_patches")] = "table",
    width: Annotated[int, SIZE] = 128,
    layers: Annotated[int, COUNT] = 4,
    heads: Annotated[int, COUNT] = 4,
    mlp: Annotated[str, OneOf("gelu", "gelu_tanh", "silu", "swiglu", "geglu")] = "gelu",
    mlp_ratio: Annotated[float, Above(0)] = 4.0,
    norm: Annotated[str, OneOf("layer", "rms")] = "layer",
    bias: bool = True,
    qk_norm: Annotated[str, OneOf("none", "layer", "rms")] = "none",
    logit_scale: Annotated[float, Between(0, 100)] = 1.0,
    eps: Annotated[float, EPS] = 1e-6,
    affine: bool = True,
    key_bias: bool = True,
    outer_affine: bool = True,
    gates: bool = False,
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
      nested_least: of these numbers the smallest.
      nested_rate: chance that any are left out, and so many are kept as likely as the number is large; 0: every number
        is as likely as another, and all are one of them.
      dropped: what stands for the others: a learned row and the place of each ("placed"), or the row without ("alike");
        or a learned latent ("latent"), which then is read as theirs is.
      begins: what registers begin as, learned rows ("table"); or each level as means of the patches in as many cells
        ("means"), or of what the levels before it leave of them ("residuals"), and a learned row for each level.
      stages: of the encoder, at the end of each but the last of which every second patch of the picture's rows becomes
        one of a coarser level (`merging`); registers see all levels. 1: nothing is merged.
      finer: what the finer patches keep then: all ("whole"), or what the merged one doesn't say ("residuals").
      apart: the products that make latents of registers and rows of latents are each level's own.
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
      norm_patches: those of patches alone are.
      norm_out: registers are normalised after the encoder's blocks, as what comes of the decoder's always is.
      rank: of how many numbers a register's learned row is made by a map (D-AR, arXiv 2505.23660); 0: it is learned
        itself.
      latent_bias: whether the products into latents and out of them have biases.
      places: what tells patches from each other: a learned row for each ("table"), or a learned sum of one for its row
        of the image and one for its column, of clips for its frame too ("axes"); or queries and keys turn with a row's
        place ("rotary"), where registers lie on a diagonal, and the direct decoder has a learned row for each level; or
        those of patches alone turn ("rotary_patches").
      width, layers, heads: D, L and H of the blocks.
      mlp: kind of their position-wise network (`layers.Mlp`).
      mlp_ratio: its inner width over D.
      norm: of the blocks.
      bias: whether their products have biases.
      qk_norm: of queries and keys (`mixers.attention.Attention`).
      logit_scale: factor on the attention's logits over 1/sqrt(D/H).
      eps: of the norms.
      affine: whether norms, those of queries and keys too, have a learned scale (and bias).
      key_bias: whether keys have a bias where products have.
      outer_affine: whether norms before and after the blocks have a learned scale (and bias) too.
      gates: what a block adds is times a learned number for each channel, 0 to begin with.
      stem: an encoder part between pixels and patches (GigaTok's are of convolutions, arXiv 2504.08736), and its
        decoder in the way back; none: products.
      stem_channels: of what it gives.
      decoder: what makes images of them, a part of `DECODERS`.

    Raises:
      UserError: the image does not divide into patches, or the width into heads, or a stem has another grid; registers
        that can't lie on a square, or don't and are to lie abreast or have places; channels that don't divide among
        those abreast; patches that don't divide into cells, or can't be merged so often; options that exclude others;
        of clips, places for registers, what is for pictures alone, or another decoder than direct.
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
    pictures = len(grid) == 2
    for name, found, needs in (
        ("stages", stages > 1 and stages, dict(pictures=pictures, sees=sees != "all", anchor=not anchor)),
        (
            "begins",
            begins != "table" and begins,
            dict(pictures=pictures, abreast=abreast == 1, rank=not rank),
        ),
        (
            "apart",
            apart,
            dict(abreast=abreast == 1, latent_bias=latent_bias, decoder=decoder["name"] == "direct"),
        ),
        (
            "places",
            places == "rotary_patches" and places,
            dict(pictures=pictures, placed=not placed, stages=stages == 1),
        ),
        (
            "places",
            places == "rotary" and places,
            dict(
                pictures=pictures, anchor=not anchor, placed=not placed, decoder=decoder["name"] == "direct"
            ),
        ),
        ("dropped", dropped == "latent" and dropped, dict(decoder=decoder["name"] == "direct")),
    ):
        if wrong := [option for option, fits in needs.items() if found and not fits]:
            raise UserError(
                f"config field tokenizer.encoder.{name}: {found} needs {NEEDED[wrong[0]]}, found another"
            )
    if begins != "table":
        merging.check_cells(levels, grid, begins)
    if stages > 1:
        merging.check_stages(stages, layers, grid[1])
    sizes = Sizes(
        width, layers, heads, mlp, mlp_ratio, norm, bias, qk_norm, logit_scale, eps, affine, key_bias
    )
    rotary = places in ("rotary", "rotary_patches")
    sizes = dataclasses.replace(sizes, rotary=rotary, outer_affine=outer_affine, gates=gates)
    check_turned(sizes, places, "tokenizer.encoder.heads")
    ends = Ends(
        image_channels=image_channels,
        patches=grid,
        patch=patch,
        patch_frames=patch_frames,
        levels=levels,
        square=square,
        placed=placed,
        latent_channels=latent_channels,
        latent_bias=latent_bias,
        stem=None,
        nested=nested,
        dropped=dropped,
        places=places,
        apart=apart,
        unit=unit,
        anchor=anchor,
        norm_in=norm_in,
        sizes=sizes,
        dtype=dtype,
    )
    if stem is not None:
        ends = dataclasses.replace(ends, stem=ends.outer(stem, stem_channels, "stem"))
    encoder = Registers(
        ends,
        moments,
        sees,
        standard,
        scrambled,
        abreast,
        norm_patches,
        norm_out,
        rank,
        begins,
        stages,
        finer,
        ends.stem and ends.stem.encoder,
    )
    codec = parts.build(DECODERS, decoder, "tokenizer.encoder.decoder", ends=ends, encoder=encoder)
    return dataclasses.replace(codec, nested_least=min(nested_least, sum(levels)), nested_rate=nested_rate)
