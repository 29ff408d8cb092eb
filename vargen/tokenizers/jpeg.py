"""JPEG as a tokenizer (JPEG-LM, arXiv 2408.08459): a picture is the bytes of its scan.

JPEG-LM stores 256x256 pixels at quality 25 with 4:2:0, about 5000 bytes; its public code puts a restart marker after
each MCU, so that each begins at a byte and refers to no other. There the headers, without tables, and the end-of-image
marker are learnt as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.limits import Between, OneOf
from vargen.slots import Grid, Slot
from vargen.tokenizers import byte_pairs, jpeg_bits, jpeg_pixels
from vargen.tokenizers.jpeg_tables import SUBSAMPLING, Frame
from vargen.tokenizers.pieces import MOST, Piece, Pieces

STOP = 256  # the code after the last byte
_END = b"\xff\xd9"  # the end-of-image marker


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
    """A JPEG file around one scan: whole numbers [length] from 0 to 255, up to the first end-of-image marker in it."""
    found = np.asarray(scan).astype(np.uint8).tobytes().partition(_END)[0]
    return frame.header() + found + _END


@dataclasses.dataclass(frozen=True)
class Jpeg:
    """The bytes of a picture's scan, one a slot or several merged, then stop codes to the last slot.

    Codes are bytes, `STOP`, and the merges behind it; or those of `pieces`. Parameters are the merges alone,
    dict(quantizer=dict(merges=int32 [M, 2])), which `fit` learns. A picture that doesn't fit has no stop code.

    Attributes:
      frame: sizes, quality, subsampling.
      length: bytes of the scan that there is room for.
      slots: codes that there is room for; one slot more, for a stop code.
      merges: M.
      pieces: the codes, where they are given.
      header: whether the headers before the scan, without tables, and the end-of-image marker are in the codes.
    """

    frame: Frame
    length: int
    slots: int
    merges: int = 0
    pieces: Pieces | None = None
    header: bool = False

    trained = False
    fitted = True
    suffix = ".jpg"
    downsample = None
    lies = False
    texts = None

    @property
    def vocab(self) -> int:
        """K."""
        return len(self.pieces.texts) if self.pieces else STOP + 1 + self.merges

    @property
    def stop(self) -> int:
        """The code after the last."""
        return self.pieces.stop if self.pieces else STOP

    @property
    def slot(self) -> Slot:
        """What each slot holds: a code."""
        return Slot((), self.vocab, self.stop)

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
        return Grid(((1, self.slots + 1),))

    def init_boxed(self, key: jax.Array) -> dict:
        """No merges yet: pairs that never are."""
        return self.init(key)

    def init(self, key: jax.Array) -> dict:
        """No merges yet: pairs that never are."""
        return dict(quantizer=self.init_quantizer(key))

    def init_quantizer(self, key: jax.Array) -> dict:
        """dict(merges int32 [M, 2])."""
        return dict(merges=jnp.full((self.merges, 2), -1, jnp.int32))

    def init_stats(self) -> dict:
        """No statistics."""
        return {}

    def sized(self, size: tuple[int, int]) -> Any:
        """Itself: there is room for the bytes of pictures of one size.

        Raises:
          UserError: another size.
        """
        if size != self.image_size:
            height, width = self.image_size
            raise UserError(
                f"images: expected {height}x{width} pixels, as a file has room for no other but in tiles, found "
                f"{size[0]}x{size[1]}"
            )
        return self

    def check_files(self) -> None:
        """There are none."""

    def fit(self, images: Iterable[np.ndarray]) -> dict:
        """The parameters: merges of the scans of images, batches float32 [b, H, W, C]."""
        params = self.init(jax.random.key(0))
        if not self.merges:
            return params
        plain = dataclasses.replace(self, slots=self.room, merges=0)
        encode = jax.jit(plain.encode)
        scans = [np.asarray(encode(plain.init(jax.random.key(0)), x)) for x in images]
        merges = byte_pairs.learn(np.concatenate(scans), self.merges, STOP + 1, STOP)
        return dict(quantizer=dict(merges=jnp.asarray(merges)))

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N]. What doesn't fit is cut off, without a stop code."""
        scan, lengths = encode(self.frame, images, self.length + 1)
        text = self._text(scan, lengths)
        if self.pieces:
            codes = self.pieces.encode(text, STOP)
        else:
            codes = byte_pairs.merge(text, params["quantizer"]["merges"], STOP + 1, STOP)
        cut = (lengths > self.length)[:, None] & (codes == self.stop)
        return jnp.where(cut, 0, codes)[:, : self.slots + 1]

    @property
    def _head(self) -> np.ndarray:
        """int32 [H]: the bytes before each scan."""
        head = self.frame.header(tables=False) if self.header else b""
        return np.frombuffer(head, np.uint8).astype(np.int32)

    @property
    def room(self) -> int:
        """Bytes that there is room for, those around the scan among them."""
        return self.length + self.header * (len(self._head) + len(_END))

    def _text(self, scan: jax.Array, lengths: jax.Array) -> jax.Array:
        """Scans int32 [B, L + 1] of `lengths` bytes -> all bytes, then `STOP`: int32 [B, room + 1]."""
        text = jnp.where(np.arange(self.length + 1) < lengths[:, None], scan, STOP)
        if not self.header:
            return text
        text = jnp.pad(text, ((0, 0), (0, len(_END))), constant_values=STOP)
        end = jnp.where(lengths > self.length, text.shape[1], lengths)
        for i, byte in enumerate(_END):
            text = text.at[np.arange(len(text)), end + i].set(byte, mode="drop")
        head = jnp.broadcast_to(self._head, (len(text), len(self._head)))
        return jnp.concatenate([head, text], axis=1)

    def _bytes(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """The inverse of codes: bytes of those before a stop or unknown one, as of `_text`."""
        over = content == self.stop if known is None else (content == self.stop) | ~known
        codes = jnp.where(jnp.cumsum(over, axis=1) > 0, self.stop, content)
        if self.pieces:
            return self.pieces.decode(codes, STOP, self.room + 1)
        return byte_pairs.split(codes, qparams["merges"], STOP + 1, STOP, self.room + 1)

    def stored(self, params: dict, images: jax.Array) -> jax.Array:
        """The content itself; see `Tokenizer.stored`."""
        return self.encode(params, images)

    def drawn(self, qparams: dict, stored: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        """What is stored is the content; see `Tokenizer.drawn`."""
        return stored, None

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Raises ValueError: bytes stand for no vectors."""
        raise ValueError(
            "tokenizer jpeg: its codes are bytes, which stand for no vectors; expected feed.vectors False"
        )

    def scan(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> tuple:
        """Codes int32 [B, N] -> bytes int32 [B, L], lengths int32 [B]: of the codes before a stop or unknown one."""
        text = self._bytes(qparams, content, known)
        scan = text[:, len(self._head) : len(self._head) + self.length + 1]
        if self.header:  # what it says is not asked
            end = (text[:, :-1] == _END[0]) & (text[:, 1:] == _END[1])
            ended = jnp.pad(jnp.cumsum(end[:, len(self._head) :], axis=1) > 0, ((0, 0), (0, 1)))
            scan = jnp.where(ended[:, : self.length + 1], STOP, scan)
        lengths = jnp.sum(scan != STOP, axis=1)
        return jnp.where(np.arange(self.length + 1) < lengths[:, None], scan, STOP), lengths

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N] -> the image, float32 [B, H, W, C], see `scan` and `decode`."""
        return decode(self.frame, *self.scan(qparams, content, known))

    def files(self, params: dict, content: jax.Array) -> list[bytes]:
        """Codes int32 [B, N] -> JPEG files, repaired where the codes have no end or more than one."""
        scans, lengths = map(np.asarray, _scan(self, params["quantizer"], content))
        return [to_file(self.frame, scan[:length]) for scan, length in zip(scans, lengths, strict=True)]

    def valid(self, params: dict, content: jax.Array) -> jax.Array:
        """bool [B]: whether codes [B, N] stop, and are byte by byte what an encoder makes of what they say."""
        levels = jpeg_bits.unpack(self.frame, *self.scan(params["quantizer"], content))
        again, lengths = jpeg_bits.pack(self.frame, levels, self.length + 1)
        same = self._bytes(params["quantizer"], content) == self._text(again, lengths)
        return self.slot.stopped(content) & (lengths <= self.length) & jnp.all(same, axis=1)

    def decode(self, params: dict, content: jax.Array, text: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N] -> float32 [B, H, W, C_image] in [-1, 1]."""
        return self.latents(params["quantizer"], content)

    def decode_latents(self, params: dict, latents: jax.Array, known: jax.Array | None = None) -> jax.Array:
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
        perceptual: Callable[[jax.Array, jax.Array], Mapping[str, jax.Array]] | None = None,
        adversarial: Callable[[jax.Array], jax.Array] | None = None,
        beside: Callable[..., Mapping[str, jax.Array]] | None = None,
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


_scan = jax.jit(Jpeg.scan, static_argnums=0)  # of every tokenizer that is alike, one program


def build(
    image_size: tuple[int, int],
    image_channels: int,
    length: Annotated[int, Between(1, 2**20)],
    slots: Annotated[int, Between(0, 2**20)] = 0,
    merges: Annotated[int, Between(0, 2**16)] = 0,
    quality: Annotated[int, Between(1, 100)] = 25,
    subsampling: Annotated[str, OneOf(*SUBSAMPLING)] = "4:2:0",
    restart: Annotated[int, Between(0, 65535)] = 0,
    pieces: Annotated[tuple[str, ...], Piece()] = (),
    stop: Annotated[int, Between(0, MOST)] = 0,
    header: bool = False,
) -> Jpeg:
    """The part "jpeg": the bytes of a JPEG file; the defaults are JPEG-LM's.

    Args:
      image_size: (H, W).
      image_channels: of the images.
      length: bytes that there is room for in a picture's scan; one that takes more isn't learnt.
      slots: codes that there is room for, merged bytes among them; 0: as many as bytes.
      merges: pairs of bytes, or of what they were merged to, that are codes of their own; learnt of the pictures.
      quality: libjpeg's, higher is better.
      subsampling: of chroma; a grey picture has none.
      restart: MCUs between two restart markers; 0 for none.
      pieces: the codes, where they are given instead of learnt; see `pieces.Pieces`.
      stop: of `pieces` the one after the last.
      header: whether the headers before the scan, without tables, and the end-of-image marker are in the codes.

    Raises:
      UserError: more slots than bytes; merges beside pieces; what `Pieces` raises.
    """
    if merges and pieces:
        raise UserError(f"config field tokenizer.merges: expected 0 beside pieces, found {merges}")
    given = Pieces(pieces, stop) if pieces else None
    frame = Frame(*image_size, image_channels, quality, subsampling, restart)
    made = Jpeg(frame, length, slots, merges, given, header)
    if slots > made.room:
        raise UserError(f"config field tokenizer.slots: expected at most length, {made.room}, found {slots}")
    return dataclasses.replace(made, slots=slots or made.room)
