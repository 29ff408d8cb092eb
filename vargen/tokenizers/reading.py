"""What decoders of registers share: rows of their latents, rows for the patches, and the codec with any prefix."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import parts
from vargen.errors import UserError
from vargen.layers import Dense
from vargen.limits import Between, check_heads
from vargen.tokenizers import conv, patches, pooled
from vargen.tokenizers.autoencoder import flat
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.merging import repeated
from vargen.tokenizers.transformer import XAVIER, EachLevel, Sizes, lattice, table

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
      latent_bias: whether the products into latents and out of them have biases.
      stem: the encoder and decoder between pixels and patches; None for one product each.
      nested: how many registers are kept in training, see `registers.build`.
      dropped: what stands for the others, see there.
      places: of patches, see there.
      apart: whether levels have products of their own, see there.
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
    latent_bias: bool
    stem: Codec | None
    nested: str
    dropped: str
    places: str
    apart: bool
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
    def rotary(self) -> bool:
        """Whether rows turn with their places and have no tables of them."""
        return self.places in ("rotary", "rotary_patches")

    def alone(self, before: int, after: int) -> tuple[tuple[int, int], ...] | None:
        """Places of rows of which those of patches, which come after so many and before so many, alone turn; None where
        they don't, or others turn too."""
        if self.places != "rotary_patches":
            return None
        return ((0, 0),) * before + lattice(0, self.patches[-2:]) + ((0, 0),) * after

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
          UserError: a width that doesn't divide into heads, or these into pairs that turn.
        """
        own = dict(width=width, layers=layers, heads=heads, mlp=mlp)
        sizes = dataclasses.replace(self.sizes, **{k: v for k, v in own.items() if v})
        check_heads(sizes.heads, sizes.width, "tokenizer.encoder.decoder.heads")
        check_turned(sizes, self.places, "tokenizer.encoder.decoder.heads")
        return dataclasses.replace(self, sizes=sizes)


def check_turned(sizes: Sizes, places: str, field: str) -> None:
    """Raises UserError where the channels of a head, which a config has at a field, can't turn with places."""
    each = sizes.width // sizes.heads
    if sizes.rotary and each % 4:
        raise UserError(
            f"config field {field}: expected heads of a multiple of 4 channels for places {places}, found {each}"
        )


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
          places: [K, D]; None for a table of its own, or of a row for each level where rows turn with their places.
        """
        ends, latents = self.ends, flat(latents)
        width, registers, dtype = ends.sizes.width, ends.registers, ends.dtype
        dropped = None
        if ends.nested not in ("none", "windows"):
            size = latents.shape[-1] if ends.dropped == "latent" else width
            dropped = table(self, "dropped", 1, size).astype(dtype)
            if ends.dropped == "latent":
                latents, dropped = _filled(latents, known, dropped, registers), None
        if ends.apart:
            dense = EachLevel(ends.levels, width, ("latent", "embed"), XAVIER.kernel(), dtype, name="rows_in")
        else:
            names, init = ("latent", "embed"), XAVIER.kernel()
            dense = Dense(width, names, init, ends.latent_bias, dtype, name="rows_in")
        x = dense(latents)
        if places is None and ends.places == "rotary":
            places = repeated(table(self, "levels", len(ends.levels), width), ends.levels)
        own = table(self, "places", registers, width) if places is None else places
        own, n = own.astype(dtype), x.shape[1]
        if dropped is None:
            # A window of those that aren't there is never looked at.
            return jnp.pad(x + own[:n], [(0, 0), (0, registers - n), (0, 0)])
        dropped = dropped + own if ends.dropped == "placed" else dropped
        x = x + own[:n]
        x = x if known is None else jnp.where(known[:, 0, :, None], x, dropped[:n])
        return jnp.concatenate([x, jnp.broadcast_to(dropped, (len(x), registers, width))[:, n:]], axis=1)


def _filled(latents: jax.Array, known: jax.Array | None, other: jax.Array, count: int) -> jax.Array:
    """Latents [B, n, C], and another [1, C] where they aren't known [B, 1, n] or beyond the first n: [B, count, C]."""
    other = other.astype(latents.dtype)
    if known is not None:
        latents = jnp.where(known[:, 0, :, None], latents, other)
    rest = jnp.broadcast_to(other, (len(latents), count - latents.shape[1], other.shape[-1]))
    return jnp.concatenate([latents, rest], axis=1)


class Patches(nn.Module):
    """The rows of patches between two blocks, for losses that look at them (`losses.semantic_at`).

    Attributes:
      first, count: which rows.
      grid: (h, w) of them; None to leave them in a row.
    """

    first: int
    count: int
    grid: tuple[int, int] | None = None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, count, D], or [B, h, w, D]."""
        found = x[:, self.first : self.first + self.count]
        return found if self.grid is None else found.reshape(len(x), *self.grid, -1)


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


@dataclasses.dataclass(frozen=True)
class RegisterCodec(Codec):
    """A codec of registers.

    Attributes:
      nested: how many registers are kept in training, see `registers.build`.
      nested_least, nested_rate: see there.
      registers: K, of which the grid may be the first few.
      texts: see `Codec.texts`.
      teaches: whether the decoder can be `taught`.
    """

    nested: str = "none"
    nested_least: int = 1
    nested_rate: float = 0.0
    registers: int = 0
    texts: tuple[int, int] | None = None
    teaches: bool = False

    @property
    def lies(self) -> bool:
        """Whether they are on a square."""
        return self.grid[0] > 1

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
        counts = counts[counts >= self.nested_least]
        if self.nested_rate:
            few = counts[:-1] / max(counts[:-1].sum(), 1)
            shares = np.append(self.nested_rate * few, 1 - self.nested_rate * few.sum())
            drawn = jax.random.choice(key, jnp.asarray(counts), (batch, 1, 1), p=jnp.asarray(shares))
        else:
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

    def taught(self, params: dict, latents: jax.Array, known: jax.Array | None) -> jax.Array:
        """See `Codec.taught`."""
        if not self.teaches:
            return super().taught(params, latents, known)
        variables = {"params": params["decoder"]}
        return self.decoder.apply(variables, latents, known, None, "taught", method="features")

    def draft(
        self, params: dict, latents: jax.Array, known: jax.Array | None, images: jax.Array, key: jax.Array
    ) -> tuple[Any, None]:
        """What the decoder's last layers take, see `Codec.draft`."""
        return self.decoder.apply({"params": params["decoder"]}, latents, known, method="features"), None
