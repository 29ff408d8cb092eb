"""What reads registers: rows of their latents beside rows for the patches, and a picture of these in one pass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import parts
from vargen.errors import UserError
from vargen.layers import Dense
from vargen.limits import SIZE, Between, check_heads
from vargen.tokenizers import conv, layers, patches, pooled
from vargen.tokenizers.autoencoder import flat
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.transformer import XAVIER, Sizes, Transformer, norm, places, table

LAYERS = Between(0, 4096)
OUTER = dict(conv=conv.build, pooled=pooled.build)


@dataclasses.dataclass(frozen=True)
class Ends:
    """What both ends of a register codec share.

    Attributes:
      image_channels: of the images.
      patches: (h, w), how many patches an image has; or (t, h, w).
      patch: pixels per side of one.
      patch_frames: frames of one, of clips.
      levels: registers of each level.
      square: whether they lie on a square, see `registers.build`.
      placed: whether they have the patches' places, see `registers.build`.
      latent_channels: C.
      stem: the encoder and decoder between pixels and patches; None for one product each.
      nested: how many registers are kept in training, see `registers.build`.
      dropped: what stands for the others, see there.
      places: of patches, see there.
      unit: whether pixels beside a product of patches lie from 0 to 1, not from -1 to 1.
      anchor: whether a row that nothing is read from stands before the patches.
      norm_in: whether rows are normalised before the blocks.
      sizes: of the encoder's blocks.
      dtype: of the computation.
    """

    image_channels: int
    patches: tuple[int, ...]
    patch: int
    patch_frames: int
    levels: tuple[int, ...]
    square: bool
    placed: bool
    latent_channels: int
    stem: Codec | None
    nested: str
    dropped: str
    places: str
    unit: bool
    anchor: bool
    norm_in: bool
    sizes: Sizes
    dtype: Any

    @property
    def registers(self) -> int:
        """K."""
        return sum(self.levels)

    @property
    def grid(self) -> tuple[int, int]:
        """Of the registers."""
        side = math.isqrt(self.registers)
        return (side, side) if self.square else (1, self.registers)

    @property
    def slots(self) -> tuple[tuple[int, int], ...]:
        """Of each level."""
        return (self.grid,) if self.square else tuple((1, n) for n in self.levels)

    @property
    def axes(self) -> tuple[int, ...] | None:
        """Of `transformer.places`."""
        return self.patches if self.places == "axes" else None

    @property
    def sides(self) -> tuple[int, ...]:
        """Of a patch, see `patches.sides`."""
        return patches.sides(self.patch, self.patch_frames, len(self.patches))

    def outer(self, encoder: Mapping[str, Any], channels: int, place: str) -> Codec:
        """An encoder part between pixels and patches of so many channels, which a config has at a place.

        Raises:
          UserError: its grid is another than the patches', or these are of clips.
        """
        if len(self.patches) > 2:
            raise UserError(
                f"config field tokenizer.encoder.{place}: expected none for clips, found {encoder.get('name')}"
            )
        side = self.patch
        size = self.patches[0] * side, self.patches[1] * side
        found = parts.build(
            OUTER,
            encoder,
            f"tokenizer.encoder.{place}",
            image_size=size,
            image_channels=self.image_channels,
            latent_channels=channels,
            moments=1,
            dtype=self.dtype,
        )
        if found.grid != self.patches:
            shown = ["x".join(map(str, x)) for x in (self.patches, found.grid)]
            raise UserError(
                f"config field tokenizer.encoder.{place}: expected a grid of {shown[0]}, that of the patches, found "
                f"{shown[1]}"
            )
        return found

    def resized(self, width: int, layers: int, heads: int, mlp: str = "") -> Ends:
        """With blocks of other sizes, where they aren't 0, or another kind of network, for the decoder.

        Raises:
          UserError: a width that doesn't divide into heads.
        """
        own = dict(width=width, layers=layers, heads=heads, mlp=mlp)
        sizes = dataclasses.replace(self.sizes, **{k: v for k, v in own.items() if v})
        check_heads(sizes.heads, sizes.width, "tokenizer.encoder.decoder.heads")
        return dataclasses.replace(self, sizes=sizes)


class Told(nn.Module):
    """Registers' latents as rows; of nested ones those that aren't known, or beyond the first n, are a learned row.

    Attributes:
      ends: of the codec.
    """

    ends: Ends

    @nn.compact
    def __call__(
        self, latents: jax.Array, known: jax.Array | None = None, places: jax.Array | None = None
    ) -> jax.Array:
        """[B, 1, n, C] or on a square, known bool [B, 1, n] or None for all -> [B, K, D].

        Args:
          latents, known: of the registers.
          places: [K, D]; None for a table of its own.
        """
        width, registers, dtype = self.ends.sizes.width, self.ends.registers, self.ends.dtype
        x = Dense(width, ("latent", "embed"), XAVIER.kernel(), dtype=dtype, name="rows_in")(flat(latents))
        dropped = None if self.ends.nested == "none" else table(self, "dropped", 1, width).astype(dtype)
        own = table(self, "places", registers, width) if places is None else places
        own, n = own.astype(dtype), x.shape[1]
        if dropped is None:
            return x + own
        dropped = dropped + own if self.ends.dropped == "placed" else dropped
        x = x + own[:n]
        x = x if known is None else jnp.where(known[:, 0, :, None], x, dropped[:n])
        return jnp.concatenate([x, jnp.broadcast_to(dropped, (len(x), registers, width))[:, n:]], axis=1)


class Patches(nn.Module):
    """The rows of patches between two blocks, for losses that look at them (`losses.semantic_at`).

    Attributes:
      first, count: which rows.
    """

    first: int
    count: int

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, count, D]."""
        return x[:, self.first : self.first + self.count]


def in_two(
    sizes: Sizes,
    shown_after: int,
    rows: tuple[int, int],
    run: Callable[[Sizes, str, jax.Array], jax.Array],
    x: jax.Array,
) -> jax.Array:
    """Rows [B, N, D] through a stack of blocks, or two, between which those of patches are shown (within a module).

    Args:
      sizes: of all blocks.
      shown_after: how many come before; 0: nothing is shown.
      rows: which are those of patches: the first, how many.
      run: sizes, the name of a stack and rows -> rows behind it.
      x: [B, N, D].
    """
    if shown_after:
        x = run(dataclasses.replace(sizes, layers=shown_after), "first_blocks", x)
        Patches(*rows, name="shown")(x)
    return run(dataclasses.replace(sizes, layers=sizes.layers - shown_after), "blocks", x)


def check_shown(shown_after: int, layers: int, field: str) -> None:
    """Raises UserError where no block comes after those before patches are shown, which a config has at a field."""
    if shown_after >= layers:
        raise UserError(f"config field {field}: expected fewer than {layers} blocks, found {shown_after}")


class Direct(nn.Module):
    """Patches from mask rows that look at the registers, in one pass.

    Attributes:
      ends: of the codec, with the decoder's own sizes.
      smoothed: whether a 3x3 convolution follows the patches.
      pixels: the decoder from patches to pixels, of `pixel_channels`; None for a product.
      codes: of a table between the two, of which patches are means; 0: none.
      shown_after: how many blocks come before `shown`, the rows of patches that a loss may look at; 0: there are none.
      texts: (T, E) of the states of a caption, which are rows too; None for no such rows.
    """

    ends: Ends
    shown_after: int
    smoothed: bool
    pixels: nn.Module | None
    pixel_channels: int
    codes: int
    texts: tuple[int, int] | None = None

    def setup(self) -> None:
        channels, dtype = self.ends.image_channels, self.ends.dtype
        if self.pixels is not None:
            return
        size = math.prod(self.ends.sides) * channels
        self.patch_out = Dense(size, ("embed", None), XAVIER.kernel(), dtype=dtype)
        if self.smoothed:
            self.conv_out = layers.conv(channels, dtype=dtype)

    @nn.compact
    def features(
        self, latents: jax.Array, known: jax.Array | None = None, text: jax.Array | None = None
    ) -> jax.Array:
        """[B, 1, n, C], known bool [B, 1, n] or None, text [B, T, E] or None for zeros -> [B, h w, D], or what the last
        layer of `pixels` takes."""
        ends, sizes = self.ends, self.ends.sizes
        count = math.prod(ends.patches)
        lie, own = places(self, count, sizes.width, ends.axes), None
        asked = [lie + table(self, "mask", 1, sizes.width)]
        if ends.anchor:
            asked = [table(self, "anchor", 1, sizes.width), *asked]
        if ends.placed:
            level = table(self, "level", 1, sizes.width)
            own = patches.resampled(lie, ends.patches, ends.grid) + level
            asked += [asked[0] + level] if ends.anchor else []
        told = Told(ends, name="registers")(latents, known, own)
        asked = [jnp.broadcast_to(y.astype(ends.dtype), (len(told), *y.shape)) for y in asked]
        x = jnp.concatenate([*asked, told], axis=1)
        if self.texts is not None:
            states = jnp.zeros((len(told), *self.texts)) if text is None else text
            states = Dense(sizes.width, (None, "embed"), XAVIER.kernel(), dtype=ends.dtype, name="text_in")(
                states
            )
            beside = table(self, "text_places", self.texts[0], sizes.width)
            x = jnp.concatenate([x, states + beside.astype(ends.dtype)], axis=1)
        x = norm(sizes, "norm_in")(x) if ends.norm_in else x
        times = (0,) * x.shape[1]

        def run(own: Sizes, name: str, x: jax.Array) -> jax.Array:
            return Transformer(own, times, False, ends.dtype, name=name)(x)

        x = in_two(sizes, self.shown_after, (int(ends.anchor), count), run, x)
        x = norm(sizes, "norm_out")(x[:, ends.anchor : ends.anchor + count])
        if self.pixels is None:
            return x
        if self.codes:
            for name, size in (("codes_in", 2 * sizes.width), ("codes_out", self.codes)):
                dense = Dense(size, ("embed", "mlp"), XAVIER.kernel(), dtype=ends.dtype, name=name)
                x = dense(x) if name == "codes_out" else jnp.tanh(dense(x))
            codebook = table(self, "codebook", self.codes, self.pixel_channels)
            x = jax.nn.softmax(x.astype(jnp.float32), axis=-1) @ codebook
        else:
            x = Dense(self.pixel_channels, ("embed", "latent"), dtype=ends.dtype, name="pixels_in")(x)
        return self.pixels.features(x.reshape(len(x), *ends.patches, -1))

    def last(self, features: jax.Array) -> jax.Array:
        """The last layers: features [B, h w, D], or of the pixels' decoder -> float32 [B, H, W, C_image], or clips."""
        if self.pixels is not None:
            return self.pixels.last(features)
        image = patches.together(self.patch_out(features), self.ends.patches, self.ends.sides)
        image = (self.conv_out(image) if self.smoothed else image).astype(jnp.float32)
        return 2 * image - 1 if self.ends.unit else image

    def __call__(
        self, latents: jax.Array, known: jax.Array | None = None, text: jax.Array | None = None
    ) -> jax.Array:
        """[B, 1, n, C], text [B, T, E] -> float32 [B, H, W, C_image]."""
        return self.last(self.features(latents, known, text))


@dataclasses.dataclass(frozen=True)
class RegisterCodec(Codec):
    """A codec of registers.

    Attributes:
      nested: how many registers are kept in training, see `registers.build`.
      registers: K, of which the grid may be the first few.
      texts: see `Codec.texts`.
    """

    nested: str = "none"
    registers: int = 0
    texts: tuple[int, int] | None = None

    @property
    def prefixes(self) -> bool:
        """Whether the first few registers are a picture."""
        return self.nested != "none"

    def kept(self, key: jax.Array, batch: int) -> jax.Array | None:
        """bool [B, 1, K], the first few of each example, see `Codec.kept`."""
        if self.nested not in ("uniform", "powers", "levels"):
            return None
        most = self.registers
        counts = np.arange(1, most + 1)
        if self.nested == "powers":
            counts = np.unique(np.minimum(2 ** np.arange(most.bit_length() + 1), most))
        elif self.nested == "levels":
            counts = np.cumsum([h * w for h, w in self.slots])
        drawn = jnp.asarray(counts)[jax.random.randint(key, (batch, 1, 1), 0, len(counts))]
        return jnp.arange(most) < drawn

    def encode(self, params: dict, images: jax.Array) -> jax.Array:
        """[B, H, W, C_image] -> float32 [B, 1, n, moments * C], the first n of K."""
        return super().encode(params, images)[:, :, : self.grid[1]]

    def decode(self, params: dict, latents: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """[B, 1, n, C], the first n registers, of which those count that are `known` bool [B, 1, n] -> images."""
        return self.decoder.apply({"params": params["decoder"]}, latents, known)

    def told(self, params: dict, latents: jax.Array, text: jax.Array) -> jax.Array:
        """As `decode` of all registers, with a caption's states float32 [B, T, E]."""
        return self.decoder.apply({"params": params["decoder"]}, latents, None, text)

    def draft(
        self, params: dict, latents: jax.Array, known: jax.Array | None, images: jax.Array, key: jax.Array
    ) -> tuple[Any, None]:
        """What the decoder's last layers take, see `Codec.draft`."""
        return self.decoder.apply({"params": params["decoder"]}, latents, known, method="features"), None


def build_direct(
    ends: Ends,
    encoder: nn.Module,
    width: Annotated[int, Between(0, 2**20)] = 0,
    layers: Annotated[int, LAYERS] = 0,
    heads: Annotated[int, LAYERS] = 0,
    shown_after: Annotated[int, LAYERS] = 0,
    smoothed: bool = False,
    pixels: Mapping[str, Any] | None = None,
    pixel_channels: Annotated[int, SIZE] = 256,
    codes: Annotated[int, Between(0, 2**24)] = 0,
    text_tokens: Annotated[int, LAYERS] = 0,
    text_channels: Annotated[int, SIZE] = 768,
) -> RegisterCodec:
    """The part "direct" of the axis "tokenizer.encoder.decoder": patches in one pass, from mask rows (TiTok's).

    Args:
      ends: what the encoder shares.
      encoder: images to registers.
      width, layers, heads: of the decoder's blocks; 0: as the encoder's.
      shown_after: after how many blocks rows of patches are shown to a loss, `losses.semantic_at` "shown" (GigaTok's,
        arXiv 2504.08736); 0: none.
      smoothed: a 3x3 convolution follows the patches.
      pixels: the encoder part whose decoder makes pixels of the patches; none: the stem's, or a product where there is
        none either.
      pixel_channels: of the patches that it takes.
      codes: of a table of so many codes patches are means, by a softmax (TiTok's proxy codes); 0: no table.
      text_tokens: of a caption's states from a text encoder so many are rows beside the registers (TA-TiTok's, arXiv
        2501.07730, of CLIP's); 0: none. Decoded without a caption, as in training, they are of states of zeros.
      text_channels: of a state.

    Raises:
      UserError: a table without pixels' decoder, no block after those before patches are shown, a convolution of clips.
    """
    if smoothed and len(ends.patches) > 2:
        raise UserError(
            "config field tokenizer.encoder.decoder.smoothed: expected False for clips, found True"
        )
    outer = ends.stem if pixels is None else ends.outer(pixels, pixel_channels, "decoder.pixels")
    if codes and outer is None:
        raise UserError(
            "config field tokenizer.encoder.decoder.codes: needs a decoder of pixels, such as pixels=part('pooled'), "
            f"found {codes}"
        )
    last = "conv_out" if smoothed else "patch_out"
    if outer is not None:
        pixel_channels, last = outer.latent_channels, f"pixels/{outer.last_name}"
    ends = ends.resized(width, layers, heads)
    check_shown(shown_after, ends.sizes.layers, "tokenizer.encoder.decoder.shown_after")
    texts = (text_tokens, text_channels) if text_tokens else None
    decoder = Direct(ends, shown_after, smoothed, outer and outer.decoder, pixel_channels, codes, texts)
    return RegisterCodec(
        encoder,
        decoder,
        ends.grid,
        ends.latent_channels,
        last,
        slots=ends.slots,
        nested=ends.nested,
        registers=ends.registers,
        texts=texts,
    )
