"""A transformer at both ends: ViTok (arXiv 2501.09755), BSQ-ViT (2406.07548), and with attention in local windows
Efficient-VQGAN (2310.05400).

Patches, of clips tubelets of several frames, are embedded, go through blocks of attention and a position-wise network,
and become latents; the decoder is the same with its own depth and width, from latents to patches.

Published:

- BSQ-ViT: patch 8, width 768, layers 12, heads 12, positions "learned", norm_in, eps 1e-5, out_width 3072; with the
  tokenizer bsq of 18 or 36 channels: 174 M
- ViTok: patch 16, positions "rope", mlp "swiglu", width (layers, heads) S 768 (6, 12), B 768 (12, 12), L 1152 (24, 16)
  with 43, 86 and 383 M at either end, for instance S and B; with the tokenizer kl of 16 channels
- Efficient-VQGAN: window 8, shift, with the tokenizer vq
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.layers import Dense, Norm, sinusoid
from vargen.layout import HIDDEN, Layout
from vargen.limits import COUNT, EPS, SIZE, Between, OneOf
from vargen.mixers.attention import Attention
from vargen.mixers.block import Block
from vargen.sharding import by_batch
from vargen.tokenizers import patches
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.transformer import XAVIER, table

GATED = ("swiglu", "geglu")


class Trunk(nn.Module):
    """Positions, blocks and a norm: what both ends have between their projections.

    Attributes:
      width, layers, heads: of the blocks.
      positions: "learned" (a table, added), "sinusoid" (added), "rope" (queries and keys turned by row and column, of
        clips by the frame too).
      mlp, mlp_width: the position-wise network (`layers.Mlp`).
      norm, eps: the norms (`layers.Norm`).
      norm_in: whether there is one before the blocks too.
      window: patches on a side of the windows that attention stays in; 0: everyone sees everyone.
      shift: whether every second block's windows begin half a window earlier (Swin, arXiv 2103.14030).
      dtype: of the computation.
    """

    width: int
    layers: int
    heads: int
    positions: str
    mlp: str
    mlp_width: int
    norm: str
    eps: float
    norm_in: bool
    window: int
    shift: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, D] -> [B, h, w, D], of clips [B, t, h, w, D]."""
        batch, *grid, _ = x.shape
        if self.positions == "learned":
            places = table(self, "places", math.prod(grid), self.width)
            x = x + places.reshape(*grid, -1).astype(x.dtype)
        elif self.positions == "sinusoid":
            x = x + waves(grid, self.width).astype(x.dtype)
        if self.norm_in:
            x = Norm(self.norm, eps=self.eps, name="norm_in")(x)
        for i in range(self.layers):
            sides = (self.window, self.window) if self.window else tuple(grid)
            start = self.window // 2 if self.shift and i % 2 else 0
            rows, exists = windowed(x, sides, start)
            y = self._block(i)(rows, None, _layout(sides, exists))[0]
            x = joined(y, (batch, *grid), sides, start)
        return Norm(self.norm, eps=self.eps, name="norm_out")(x)

    def _block(self, i: int) -> Block:
        """The i-th block."""
        rope = "places" if self.positions == "rope" else "none"
        init = XAVIER.kernel()
        options = dict(kernel_init=init, out_init=init, bias="qkv", rope=rope, dtype=self.dtype)
        mixer = Attention(self.width, self.heads, in_gain=0.5**0.5, **options, parent=None)
        return Block(
            mixer=mixer,
            width=self.width,
            mlp=self.mlp,
            mlp_width=self.mlp_width,
            initial=XAVIER,
            out_init=init,
            norm=self.norm,
            eps=self.eps,
            dtype=self.dtype,
            name=f"block{i}",
        )


def waves(grid: Sequence[int], width: int) -> jax.Array:
    """float32 [h, w, width]: of the row in the first half of the channels, of the column in the second, cosines, then
    sines at geometric frequencies; of clips [t, h, w, width], thirds of frame, row and column."""
    places = jnp.asarray(np.moveaxis(np.indices(grid), 0, -1))
    return sinusoid(places, width // len(grid)).reshape(*grid, width)


def windowed(x: jax.Array, sides: tuple[int, ...], start: int = 0) -> tuple[jax.Array, np.ndarray | None]:
    """Cuts a grid into windows.

    Args:
      x: [B, h, w, D], or [B, t, h, w, D].
      sides: of a window.
      start: by how much the first window begins before the grid.

    Returns:
      [B * windows, rows * columns, D], zeros where a window goes beyond the grid; and bool [B * windows, ...], which
      rows lie in it, None where all do.
    """
    batch, *grid, width = x.shape
    pads = [(start, -(n + start) % side) for n, side in zip(grid, sides, strict=True)]
    exists = None
    if any(map(any, pads)):
        exists = np.pad(np.ones(grid, bool), pads)
        exists = np.tile(_cut(exists[None, ..., None], sides)[..., 0], (batch, 1))
        x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    return _cut(x, sides), exists


def _cut(x: Any, sides: tuple[int, ...]) -> Any:
    """[B, h, w, D], of sides that divide -> [B * windows, rows * columns, D]."""
    return patches.apart(x, sides).reshape(-1, math.prod(sides), x.shape[-1])


def joined(x: jax.Array, shape: tuple[int, ...], sides: tuple[int, ...], start: int = 0) -> jax.Array:
    """The inverse of `windowed`: -> [B, h, w, D] for shape (B, h, w)."""
    batch, *grid = shape
    counts = tuple(-(-(n + start) // side) for n, side in zip(grid, sides, strict=True))
    x = patches.together(x.reshape(batch, math.prod(counts), -1), counts, sides)
    return x[:, *(slice(start, start + n) for n in grid)]


def _layout(sides: tuple[int, ...], exists: np.ndarray | None) -> Layout:
    """All rows of a window see one another, but for those beyond the grid, which nobody sees."""
    coords = np.moveaxis(np.indices(sides), 0, -1).reshape(-1, len(sides))
    times = np.zeros(len(coords), np.int32)
    # Traced, as they are split over devices with the examples.
    seen = None if exists is None else jnp.asarray(np.where(exists, 0, HIDDEN).astype(np.int32))
    return Layout(times, coords, key_times=seen)


class VitEncoder(nn.Module):
    """Images or clips to latents, one latent a patch.

    Attributes:
      out_channels: channels of the result (twice the latents' for a Gaussian).
      patch: pixels per side of a patch.
      patch_frames: frames of one, of clips.
      trunk: options of `Trunk`.
    """

    out_channels: int
    patch: int
    patch_frames: int
    trunk: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] -> float32 [B, h, w, out_channels]; clips [B, T, H, W, C] -> [B, t, h, w, out_channels]."""
        options = dict(self.trunk)
        dtype, (batch, *size, _) = options["dtype"], images.shape
        sides = patches.sides(self.patch, self.patch_frames, len(size))
        x = patches.apart(images.astype(dtype), sides)
        x = by_batch(x.reshape(batch, *(n // side for n, side in zip(size, sides, strict=True)), -1))
        # What a norm follows needs no bias.
        first = Dense(
            options["width"], (None, "embed"), bias=not options["norm_in"], dtype=dtype, name="patch_in"
        )
        x = Trunk(**options, name="trunk")(first(x))
        x = Dense(self.out_channels, ("embed", "latent"), dtype=dtype, name="projection")(x)
        return x.astype(jnp.float32)


class VitDecoder(nn.Module):
    """Latents to images, the encoder mirrored.

    Attributes:
      out_channels: of the images.
      sides: of a patch, (rows, columns), or of clips (frames, rows, columns).
      out_width: W of a layer tanh(x W) before the last; 0: none.
      trunk: options of `Trunk`.
    """

    out_channels: int
    sides: tuple[int, ...]
    out_width: int
    trunk: Any

    def setup(self) -> None:
        size = math.prod(self.sides) * self.out_channels
        self.patch_out = Dense(
            size, ("mlp" if self.out_width else "embed", None), dtype=dict(self.trunk)["dtype"]
        )

    @nn.compact
    def features(self, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, D], all but the last layer; of clips [B, t, h, w, ...], here and below."""
        options = dict(self.trunk)
        dtype = options["dtype"]
        x = Dense(options["width"], ("latent", "embed"), dtype=dtype, name="projection")(
            latents.astype(dtype)
        )
        x = Trunk(**options, name="trunk")(x)
        if self.out_width:
            x = jnp.tanh(Dense(self.out_width, ("embed", "mlp"), dtype=dtype, name="hidden")(x))
        return x

    def last(self, features: jax.Array) -> jax.Array:
        """The last layer: [B, h, w, D] -> float32 [B, H, W, out_channels]."""
        x = self.patch_out(features).astype(jnp.float32)
        return patches.together(x, features.shape[1:-1], self.sides)

    def __call__(self, latents: jax.Array) -> jax.Array:
        """[B, h, w, C] -> float32 [B, H, W, out_channels]."""
        return self.last(self.features(latents))


def build(
    image_size: tuple[int, ...],
    image_channels: int,
    latent_channels: int,
    moments: int,
    dtype: Any,
    patch: Annotated[int, SIZE] = 16,
    patch_frames: Annotated[int, SIZE] = 1,
    width: Annotated[int, SIZE] = 768,
    layers: Annotated[int, COUNT] = 6,
    heads: Annotated[int, COUNT] = 12,
    decoder_width: Annotated[int, Between(0, 2**20)] = 0,
    decoder_layers: Annotated[int, Between(0, 4096)] = 0,
    decoder_heads: Annotated[int, Between(0, 4096)] = 0,
    positions: Annotated[str, OneOf("learned", "sinusoid", "rope")] = "rope",
    mlp: Annotated[str, OneOf("gelu", "gelu_tanh", "swiglu", "geglu")] = "swiglu",
    norm: Annotated[str, OneOf("layer", "rms")] = "layer",
    eps: Annotated[float, EPS] = 1e-6,
    norm_in: bool = False,
    out_width: Annotated[int, Between(0, 2**20)] = 0,
    window: Annotated[int, Between(0, 4096)] = 0,
    shift: bool = False,
) -> Codec:
    """The part "vit" of the axis "encoder".

    Args:
      image_size, image_channels: of the images, (H, W) and C; of clips (T, H, W) and C.
      latent_channels: channels that the decoder takes.
      moments: 1, or 2 where the encoder gives mean and log-variance.
      dtype: of the computation.
      patch: pixels per side of a patch.
      patch_frames: of clips, how many frames are a patch together.
      width, layers, heads: of the encoder's blocks.
      decoder_width, decoder_layers, decoder_heads: of the decoder's; 0: as the encoder's.
      positions: "learned" (a table; of one image size), "sinusoid" or "rope" (any size).
      mlp: kind of the position-wise networks, of 4 widths, of 8/3 where they are gated.
      norm, eps: kind of the norms, and what is added to the variance.
      norm_in: whether there is one before the blocks too, in place of the patch embedding's bias.
      out_width: of a layer with tanh before the decoder's last; 0: none.
      window: patches on a side of the windows that attention stays in; 0: everyone sees everyone.
      shift: whether every second block's windows begin half a window earlier.

    Raises:
      UserError: the image does not divide into patches, or a width into heads and positions; a shift without windows;
        windows of clips.
    """
    grid = patches.grid(image_size, patch, frames=patch_frames)
    if window and len(grid) > 2:
        raise UserError(f"config field tokenizer.encoder.window: expected 0 for clips, found {window}")
    if shift and window < 2:
        raise UserError(f"config field tokenizer.encoder.shift: needs a window of at least 2, found {window}")
    sizes = (width, layers, heads)
    decoders = (decoder_width or width, decoder_layers or layers, decoder_heads or heads)
    shared = dict(
        positions=positions,
        mlp=mlp,
        norm=norm,
        eps=eps,
        norm_in=norm_in,
        window=window,
        shift=shift,
        dtype=dtype,
    )
    trunks = []
    for side, (size, depth, count) in (("", sizes), ("decoder_", decoders)):
        least = 2 * len(grid) if positions == "rope" else 1
        if size % (least * count) or (positions == "sinusoid" and size % (2 * len(grid))):
            raise UserError(
                f"config field tokenizer.encoder.{side}heads: expected heads of a multiple of {least} channels for "
                f"positions {positions}, found a width of {size} and {count} heads"
            )
        hidden = round(8 * size / 3) if mlp in GATED else 4 * size
        trunks.append(tuple(dict(width=size, layers=depth, heads=count, mlp_width=hidden, **shared).items()))
    return Codec(
        encoder=VitEncoder(moments * latent_channels, patch, patch_frames, trunks[0]),
        decoder=VitDecoder(
            image_channels, patches.sides(patch, patch_frames, len(grid)), out_width, trunks[1]
        ),
        grid=grid,
        latent_channels=latent_channels,
        last_name="patch_out",
        any_size=positions != "learned" and len(grid) == 2,
    )
