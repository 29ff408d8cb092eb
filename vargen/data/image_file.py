"""A picture file to pixels: the one reader of all commands. Values are Pillow's, but where it would lose some."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from vargen import paths
from vargen.data import transforms
from vargen.errors import UserError

# A file of a few kilobytes can claim any size: what would take more than this to decode is refused by its header.
MOST_PIXELS = 100_000_000
MOST_PIXELS_OF_JPEG = 400_000_000  # where it can be decoded at a reduced scale
LONGEST_SIDE = 65_535
# Larger pictures are decoded a few at a time, or as many readers as there are would fill the memory.
LARGE = 16_000_000  # pixels
_few = threading.BoundedSemaphore(4)
VERSION = 2  # raised when a file comes to be read as other pixels; fingerprints of folders hold it


class BrokenImage(UserError):
    """A file whose content cannot be read as a picture, today or another day."""


def reason(error: OSError) -> str:
    """What an OSError says, in few words."""
    return error.strerror or str(error) or type(error).__name__


def read_image(file: os.PathLike, channels: int, image_size: int = 0) -> np.ndarray:
    """The first picture in a file, upright: uint8 [H, W, channels].

    It is turned as its EXIF orientation says. Transparent pixels lie over white. 16 bits a grey level become
    round(v / 257), 12 bits likewise, whole numbers of 32 bits are taken as 16 and refused beyond; floating-point levels
    are those from 0 to 1, or from 0 to 255 where one is above 1. All else is as Pillow converts it; colour profiles are
    left aside.

    Args:
      file: any that Pillow reads, here or in a bucket.
      channels: 1 or 3.
      image_size: where given, the picture may be reduced to a scale that keeps twice this size: a JPEG when it is
        decoded, others as `transforms.fit` would do it.

    Raises:
      BrokenImage: no picture that Pillow reads, a truncated one, levels in no known range, or one larger than
        `MOST_PIXELS` (a JPEG at reduced scale `MOST_PIXELS_OF_JPEG`) or `LONGEST_SIDE`.
      UserError: the file is missing, no plain file, or may not be read.
    """
    where = _plain_file(file)
    from PIL import Image

    with _explained(file), _opened(where) as content, Image.open(content) as picture:
        return _read(file, picture, channels, image_size)


def read_mask(file: os.PathLike) -> np.ndarray:
    """Where the first picture in a file, upright, is white, or opaque if any of it is transparent: bool [H, W].

    The limit is half of white, or of opacity. Errors are those of `read_image`.
    """
    where = _plain_file(file)
    from PIL import Image

    with _explained(file), _opened(where) as content, Image.open(content) as picture:
        _check_size(file, picture, MOST_PIXELS)
        picture.load()
        picture = upright(picture)
        if picture.has_transparency_data:
            if picture.mode.startswith("I"):  # a grey level, of PNGs of 16 bits
                opacity = 255 * (np.asarray(picture) != picture.info["transparency"])
            else:
                opacity = np.asarray(picture.convert("RGBA").getchannel("A"))
            if opacity.min() < 255:
                return opacity >= 128
        return np.asarray(_converted(file, picture, "L")) >= 128


def size_of(file: os.PathLike) -> tuple[int, int]:
    """Height and width of the first picture in a file, upright, by its header. Errors are those of `read_image`."""
    where = _plain_file(file)
    from PIL import ExifTags, Image

    with _explained(file), _opened(where) as content, Image.open(content) as picture:
        width, height = picture.size
        turned = False
        with contextlib.suppress(Exception):  # of a broken EXIF, as in `upright`
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def read(content: BinaryIO, name: str, channels: int) -> np.ndarray:
    """As `read_image`, of an open file that is called `name` in messages."""
    _prepare()
    from PIL import Image

    with _explained(name), Image.open(content) as picture:
        return _read(name, picture, channels, 0)


def _plain_file(file: os.PathLike) -> paths.Path:
    """The file's place, once it is known to be one, and Pillow made ready.

    Raises:
      UserError: the file is missing, or no plain file.
    """
    # What was listed isn't read as `~user`.
    where = file if isinstance(file, paths.Path) else paths.path(file)
    if not paths.is_file(where):
        found = "a directory" if where.is_dir() else "no plain file" if where.exists() else "none"
        raise UserError(f"image {file}: expected a file, found {found}")
    _prepare()
    return where


@contextlib.contextmanager
def _explained(file: os.PathLike | str) -> Iterator[None]:
    """What reading a file raises, as errors that name it."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage(
            f"image {file}: expected a whole image, found a broken one, or of a kind that Pillow doesn't read"
        ) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, zlib.error and more
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"image {file}: expected one that can be read, found: {reason(error)}") from error
        raise BrokenImage(f"image {file}: expected a whole image, found a broken one ({error})") from error


@functools.cache
def _prepare() -> None:
    """Pillow's own limits and warnings are switched off, once: the limits are ours, and said."""
    from PIL import Image, PngImagePlugin

    Image.MAX_IMAGE_PIXELS = None
    # Colour profiles and notes of some megabytes are no reason to refuse a picture.
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of cameras' EXIF and the like


def _opened(where: paths.Path) -> BinaryIO:
    """The file for Pillow: not its name, or it would be mapped into memory, which scrambles grey TIFFs that lie."""
    if not paths.is_remote(where):
        return open(where, "rb")
    try:
        return io.BytesIO(where.read_bytes())
    except Exception as error:  # of the network, which have nothing to do with the picture
        said = reason(error) if isinstance(error, OSError) else str(error) or type(error).__name__
        raise UserError(f"image {where}: expected one that can be read, found: {said}") from error


def _read(file: os.PathLike | str, picture: Any, channels: int, image_size: int) -> np.ndarray:
    if picture.format == "EPS":
        raise BrokenImage(f"image {file}: expected pixels, found PostScript, which is a program")
    jpeg = picture.format in ("JPEG", "MPO")  # the latter is what phones call it
    _check_size(file, picture, MOST_PIXELS_OF_JPEG if jpeg else MOST_PIXELS)
    size = picture.size
    if image_size:
        picture.draft(None, (2 * image_size, 2 * image_size))
    _check_size(file, picture, MOST_PIXELS, size)
    large = picture.width * picture.height > LARGE
    with _few if large else contextlib.nullcontext():
        picture.load()
        pixels = _converted(file, upright(picture), "L" if channels == 1 else "RGB")
        if image_size:
            pixels = transforms.halved(pixels, 2 * image_size)
        array = np.asarray(pixels)
    return array if array.ndim == 3 else array[..., None]


def _check_size(
    file: os.PathLike | str, picture: Any, most: int, size: tuple[int, int] | None = None
) -> None:
    """Raises BrokenImage where decoding would take too long; `size` is what the file has, if not the picture's."""
    if picture.width * picture.height > most or max(picture.size) > LONGEST_SIDE:
        width, height = size or picture.size
        raise BrokenImage(
            f"image {file}: expected at most {most // 10**6} megapixels and {LONGEST_SIDE} pixels a side, found "
            f"{width} x {height}"
        )


def upright(picture: Any) -> Any:
    """A loaded picture turned as its EXIF orientation says; one whose EXIF is broken as it is."""
    from PIL import ExifTags, ImageOps

    try:
        if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return picture
    except Exception:  # whatever there is in it
        return picture
    for name in ("exif", "Raw profile type exif"):
        picture.info.pop(
            name, None
        )  # it is read; writing it anew, which nobody needs, fails for many a camera's
    return ImageOps.exif_transpose(picture)


def _converted(file: os.PathLike | str, picture: Any, mode: str) -> Any:
    """A picture of 8 bits a channel, "L" or "RGB"."""
    from PIL import Image

    tags = getattr(picture, "tag_v2", {})  # TIFF's: BitsPerSample and SampleFormat
    bits, signed = tags.get(258, (16,))[0], tags.get(339, (1,))[0] == 2
    if picture.mode in ("I", "F") or picture.mode.startswith("I;") or (picture.mode == "L" and signed):
        values = np.asarray(picture)
        if bits == 32 and not signed and picture.mode == "I":
            values = values.view(np.uint32)  # which Pillow has no mode for
        elif bits == 8:
            values = values.view(np.int8)  # nor for these
        try:
            levels = transforms.to_bytes(values, {8: 255, 12: 4095}.get(bits, 65_535))
        except ValueError as error:
            raise BrokenImage(f"image {file}: {error}") from error
        transparent = picture.info.get("transparency")
        if isinstance(transparent, int):  # a grey level, of PNGs
            levels = np.where(values == transparent, np.uint8(255), levels)
        picture = Image.fromarray(levels)
    elif picture.has_transparency_data:
        picture = over_white(picture)
    elif picture.mode == "LAB":
        picture = picture.convert("RGB")  # the only way from there
    return picture if picture.mode == mode else picture.convert(mode)


def over_white(picture: Any) -> Any:
    """A picture with transparency, laid over white: RGB."""
    from PIL import Image

    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")
