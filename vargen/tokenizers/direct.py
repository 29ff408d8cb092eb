"""Pictures of registers in one pass: patches from mask rows that look at them (TiTok, arXiv 2406.07550)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.layers import Dense
from vargen.limits import SIZE, Between
from vargen.tokenizers import layers, patches
from vargen.tokenizers.reading import LAYERS, Ends, Patches, RegisterCodec, Told, check_shown, in_two
from vargen.tokenizers.transformer import (
    XAVIER,
    Sizes,
    Transformer,
    diagonal,
    lattice,
    norm,
    places,
    table,
)


class Direct(nn.Module):
    """Patches from mask rows that look at the registers, in one pass.

    Attributes:
      ends: of the codec, with the decoder's own sizes.
      smoothed: whether a 3x3 convolution follows the patches.
      pixels: the decoder from patches to pixels, of `pixel_channels`; None for a product.
      codes: of a table between the two, of which patches are means; 0: none.
      shown_after: how many blocks come before `shown`, the rows of patches that a loss may look at; 0: there are none.
      taught: whether there is a second mask row, of patches that a teacher's features are drawn from.
      texts: (T, E) of the states of a caption, which are rows too; None for no such rows.
    """

    ends: Ends
    shown_after: int
    smoothed: bool
    pixels: nn.Module | None
    pixel_channels: int
    codes: int
    taught: bool
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
        self,
        latents: jax.Array,
        known: jax.Array | None = None,
        text: jax.Array | None = None,
        asks: str = "mask",
    ) -> jax.Array:
        """[B, 1, n, C], known bool [B, 1, n] or None, text [B, T, E] or None for zeros -> [B, h w, D], or what the last
        layer of `pixels` takes; of patches that "taught" asks for [B, h, w, D], as the blocks leave them."""
        ends, sizes = self.ends, self.ends.sizes
        count = math.prod(ends.patches)
        masks = {name: table(self, name, 1, sizes.width) for name in ("mask", "taught")[: 1 + self.taught]}
        lie = jnp.zeros((count, 1)) if ends.rotary else places(self, count, sizes.width, ends.axes)
        asked, own = [lie + masks[asks]], None
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
        coords = ends.alone(int(ends.anchor), x.shape[1] - count - ends.anchor)
        if ends.places == "rotary":
            coords = lattice(ends.registers, ends.patches) + diagonal(0, ends.registers)

        def run(own: Sizes, name: str, x: jax.Array) -> jax.Array:
            return Transformer(own, times, False, ends.dtype, coords=coords, name=name)(x)

        x = in_two(sizes, self.shown_after, (int(ends.anchor), count), run, x)
        if asks == "taught":
            return Patches(int(ends.anchor), count, ends.patches)(x)
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
    taught: bool = False,
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
      taught: the same blocks run from another mask row for `losses.semantic_at` "taught": what they make of it, and not
        the picture's own patches, is drawn towards a teacher's features (ResTok's, arXiv 2601.03955).
      text_tokens: of a caption's states from a text encoder so many are rows beside the registers (TA-TiTok's, arXiv
        2501.07730, of CLIP's); 0: none. Decoded without a caption, as in training, they are of states of zeros.
      text_channels: of a state.

    Raises:
      UserError: a table without pixels' decoder, no block after those before patches are shown, a convolution of clips,
        a caption's rows with places rotary.
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
    if texts and ends.rotary:
        raise UserError(
            f"config field tokenizer.encoder.decoder.text_tokens: expected 0 with places rotary, found {text_tokens}"
        )
    pixels = outer and outer.decoder
    decoder = Direct(ends, shown_after, smoothed, pixels, pixel_channels, codes, taught, texts)
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
        teaches=taught,
    )
