"""JPEG as a tokenizer (JPEG-LM, arXiv 2408.08459): a picture is the bytes of its scan.

JPEG-LM stores 256x256 pixels at quality 25 with 4:2:0, about 5000 bytes; its public code puts a restart marker after
each MCU, so that each begins at a byte and refers to no other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.limits import Between, OneOf
from vargen.slots import Grid, Slot
from vargen.tokenizers import jpeg_bits, jpeg_pixels
from vargen.tokenizers.jpeg_tables import SUBSAMPLING, Frame

STOP = 256  # the code after the last byte


def encode(frame: Frame, images: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """Images -> the entropy-coded bytes between a JPEG file's headers and its end-of-image marker.

    They are the bytes that libjpeg-turbo writes with the standard Huffman tables.

    Args:
      frame: sizes, quality, subsampling.
      images: float32 [B, H, W, C] in [-1, 1], rounded to 8 bits.
      length: L, bytes that there is room for.

    Returns:
      bytes int32 [B, L], zeros after the scan's end; lengths int32 [B], exact where at most L and above L where
      the scan doesn't fit.

    Raises:
      UserError: images of another shape.
    """
    expected = (frame.height, frame.width, frame.channels)
    if images.ndim != 4 or images.shape[1:] != expected:
        raise UserError(f"images: expected [B, {', '.join(map(str, expected))}], found {list(images.shape)}")
    return jpeg_bits.pack(frame, jpeg_pixels.coefficients(frame, images), length)


def decode(frame: Frame, scan: jax.Array, lengths: jax.Array) -> jax.Array:
    """The inverse; bytes that are no scan are read as libjpeg reads them, and what they leave out is mid-grey.

    Args:
      frame: sizes, quality, subsampling.
      scan: int32 [B, L], of which the lowest 8 bits count.
      lengths: int32 [B], bytes of the scan; what follows is not looked at.

    Returns:
      float32 [B, H, W, C] in [-1, 1], multiples of 1 / 127.5.
    """
    return jpeg_pixels.images(frame, jpeg_bits.unpack(frame, scan, lengths))


def to_file(frame: Frame, scan: np.ndarray) -> bytes:
    """A JPEG file around one scan: whole numbers [length] from 0 to 255."""
    return frame.header() + np.asarray(scan).astype(np.uint8).tobytes() + b"\xff\xd9"


@dataclasses.dataclass(frozen=True)
class Jpeg:
    """The bytes of a picture's scan, one a slot, then stop codes to the last slot. No parameters.

    Attributes:
      frame: sizes, quality, subsampling.
      length: bytes that there is room for; one slot more, for a stop code.
    """

    frame: Frame
    length: int

    vocab = STOP + 1
    slot = Slot((), STOP + 1)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.frame.height, self.frame.width

    @property
    def image_channels(self) -> int:
        """Of the images."""
        return self.frame.channels

    @property
    def channels(self) -> int:
        """C of the latents, which are the images."""
        return self.frame.channels

    @property
    def grid(self) -> Grid:
        """One row of slots."""
        return Grid(((1, self.length + 1),))

    def init_boxed(self, key: jax.Array) -> dict:
        """No parameters."""
        return dict(quantizer={})

    def init(self, key: jax.Array) -> dict:
        """No parameters."""
        return dict(quantizer={})

    def init_stats(self) -> dict:
        """No statistics."""
        return {}

    def lengths(self, images: jax.Array) -> jax.Array:
        """Bytes that each image takes, above `length` where they don't fit: float32 [B, H, W, C] -> int32 [B]."""
        return encode(self.frame, images, self.length)[1]

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N]. What doesn't fit is cut off (see `lengths`). No key is used."""
        scan, lengths = encode(self.frame, images, self.length)
        scan = jnp.pad(scan, ((0, 0), (0, 1)), constant_values=STOP)
        return jnp.where(jnp.arange(self.length + 1) < lengths[:, None], scan, STOP)

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N] -> the image, float32 [B, H, W, C]: of the bytes before the first stop or unknown one."""
        over = content >= STOP if known is None else (content >= STOP) | ~known
        lengths = jnp.where(jnp.any(over, axis=1), jnp.argmax(over, axis=1), content.shape[1])
        return decode(self.frame, content, lengths)

    def decode(self, params: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [B, N] -> float32 [B, H, W, C_image] in [-1, 1]."""
        return self.latents(params["quantizer"], content)

    def decode_latents(self, params: dict, latents: jax.Array) -> jax.Array:
        """The latents as they are."""
        return latents

    def loss(
        self,
        params: dict,
        stats: dict,
        images: jax.Array,
        key: jax.Array,
        step: jax.Array,
        settings: Mapping[str, Any],
        *,
        perceptual: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
        adversarial: Callable[[jax.Array], jax.Array] | None = None,
    ) -> tuple:
        """Raises UserError: there is nothing to train."""
        raise UserError("tokenizer jpeg: expected one with parameters to train, found none")

    def revive(
        self,
        params: dict,
        stats: dict,
        images: jax.Array | None,
        key: jax.Array,
        step: jax.Array | int,
        steps: int,
    ) -> tuple[dict, dict]:
        """Nothing is done."""
        return params, stats


def build(
    image_size: tuple[int, int],
    image_channels: int,
    length: Annotated[int, Between(1, 2**20)],
    quality: Annotated[int, Between(1, 100)] = 25,
    subsampling: Annotated[str, OneOf(*SUBSAMPLING)] = "4:2:0",
    restart: Annotated[int, Between(0, 65535)] = 0,
) -> Jpeg:
    """The part "jpeg": the bytes of a JPEG file; the defaults are JPEG-LM's.

    Args:
      image_size: (H, W).
      image_channels: of the images.
      length: bytes that there is room for in a picture.
      quality: libjpeg's, higher is better.
      subsampling: of chroma; a grey picture has none.
      restart: MCUs between two restart markers; 0 for none.
    """
    return Jpeg(Frame(*image_size, image_channels, quality, subsampling, restart), length)
