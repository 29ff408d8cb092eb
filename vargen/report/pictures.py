"""Pictures for people: arrays of images to PNG files, labelled grids and data addresses. Needs Pillow."""

from __future__ import annotations

import base64
import functools
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

import vargen
from vargen import paths
from vargen.clips import strip

_PAPER, _INK = (250, 249, 246), (60, 60, 64)
KEY = "vargen"  # the text field of PNGs
FRAME = 200  # milliseconds
# Where systems keep fonts. Pillow's own has Latin letters alone.
FONTS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float images in [-1, 1], [..., H, W, C], to uint8 of the same shape; uint8 comes back as it is."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    return np.clip(np.round((images.astype(np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def to_pil(image: np.ndarray, scale: int = 1) -> Image.Image:
    """One image [H, W, C], uint8 or float in [-1, 1], C = 1 or 3, each pixel drawn as `scale` x `scale`; of a clip
    [T, H, W, C] the frames side by side."""
    pixels = to_uint8(image if np.ndim(image) == 3 else strip(image))
    pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def save(
    picture: Image.Image | np.ndarray, where: paths.PathLike, made_by: Mapping[str, Any] | None = None
) -> None:
    """Writes a picture, PIL's or an image as of `to_pil`, as a PNG that appears whole or not at all; a clip as an
    animated one.

    Args:
      picture: the picture, or clip [T, H, W, C].
      where: the file.
      made_by: what made it, kept as JSON in the PNG's text field "vargen"; see `settings`.
    """
    text = PngImagePlugin.PngInfo()
    if made_by is not None:
        text.add_itxt("Software", f"vargen {vargen.__version__}")
        text.add_itxt(KEY, json.dumps(made_by, sort_keys=True))
    with paths.replacing(where) as file:
        _write(picture, file, text)


def _write(picture: Image.Image | np.ndarray, file: Any, text: PngImagePlugin.PngInfo | None = None) -> None:
    """As `save`, into a path or an open file."""
    frames = [picture]
    if isinstance(picture, np.ndarray):
        frames = [to_pil(frame) for frame in (picture if picture.ndim == 4 else picture[None])]
    first, *rest = frames
    moving: dict[str, Any] = dict(save_all=True, append_images=rest, duration=FRAME, loop=0) if rest else {}
    first.save(file, "PNG", optimize=True, pnginfo=text, **moving)


def settings(where: paths.PathLike) -> str:
    """The text that `save` left in a PNG; "" where there is none, or no PNG."""
    try:
        with paths.path(where).open("rb") as file, Image.open(file, formats=("PNG",)) as picture:
            found = picture.info.get(KEY, "")  # fields before the pixels; those are not read
    except (OSError, ValueError, SyntaxError):
        return ""
    return found if isinstance(found, str) else ""


def data_address(image: np.ndarray) -> str:
    """One image [H, W, C] as a `data:image/png;base64,...` address, to stand inside a page; clips [T, H, W, C] move."""
    buffer = io.BytesIO()
    _write(np.asarray(image), buffer)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def display_scale(side: int, wanted: int = 64) -> int:
    """How many times to enlarge images of `side` pixels to show them about `wanted` pixels wide."""
    return max(1, round(wanted / side))


def grid(
    images: np.ndarray,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    scale: int | None = None,
) -> Image.Image:
    """A labelled grid of images on light paper.

    Args:
      images: [rows, columns, H, W, C], uint8 or float in [-1, 1]; or clips [rows, columns, T, H, W, C], as strips.
      row_labels: one per row, drawn on the left; none for no labels.
      column_labels: one per column, drawn above.
      scale: size of one pixel; None makes small images about 64 pixels wide, frames of clips 32.
    """
    wanted = 64
    if images.ndim > 5:
        images, wanted = strip(images), 32
    rows, columns, height, width, _ = images.shape
    scale = scale or display_scale(height, wanted)
    cell_height, cell_width = height * scale, width * scale
    gap = max(4, cell_height // 16)
    font_size = max(14, min(20, cell_height // 4))
    shown = [_label(text, f"#{i + 1}", font_size) for i, text in enumerate(row_labels)]
    margin = 3 * gap
    text_width = max((int(font.getlength(text)) for text, font in shown), default=0)
    left = margin + (text_width + 2 * gap if row_labels else 0)
    top = margin + (int(font_size * 1.2) + gap if column_labels else 0)
    size = (
        left + columns * (cell_width + gap) - gap + margin,
        top + rows * (cell_height + gap) - gap + margin,
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for r in range(rows):
        y = top + r * (cell_height + gap)
        if row_labels:
            text, font = shown[r]
            draw.text((left - 2 * gap, y + cell_height // 2), text, _INK, font, anchor="rm")
        for c in range(columns):
            sheet.paste(to_pil(images[r, c], scale).convert("RGB"), (left + c * (cell_width + gap), y))
    for c, label in enumerate(column_labels):
        text, font = _label(label, f"#{c + 1}", font_size)
        draw.text((left + c * (cell_width + gap) + cell_width // 2, top - gap), text, _INK, font, anchor="ms")
    return sheet


def undrawable(labels: Sequence[str]) -> dict[str, str]:
    """What `grid` writes instead of the labels for which this machine has no font: "#3" and the label."""
    return {f"#{i + 1}": text for i, text in enumerate(labels) if _font(text, 14) is None}


def _label(text: str, instead: str, size: int) -> tuple[str, Any]:
    """A label and a font that has it; where there is none, what stands for it."""
    found = _font(text, size)
    return (text, found) if found is not None else (instead, ImageFont.load_default(size=size))


def font(text: str, size: int) -> Any:
    """A font that has every letter of a text; where there is none, Pillow's own."""
    return _font(text, size) or ImageFont.load_default(size=size)


def _font(text: str, size: int) -> Any:
    """A font that has every letter of a text: Pillow's own, or one of the system's; None where none has."""
    letters = frozenset(c for c in text if not c.isspace())
    if any(0xD800 <= ord(c) < 0xE000 for c in letters):  # bytes that are no text
        return None
    for file in ("", *_font_files()):
        if letters <= _has(file, letters):
            return _opened(file, size)
    return None


@functools.cache
def _font_files() -> tuple[str, ...]:
    found = [
        str(file)
        for folder in FONTS
        for file in sorted(pathlib.Path(folder).expanduser().rglob("*"))
        if file.suffix.lower() in (".ttf", ".otf", ".ttc")
    ]
    # Upright and of usual weight first, and those that have many scripts.
    return tuple(
        sorted(found, key=lambda f: (not any(w in f for w in ("Regular", "DejaVuSans.ttf")), len(f)))
    )


@functools.cache
def _opened(file: str, size: int) -> Any:
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size=size)


@functools.cache
def _has(file: str, letters: frozenset[str]) -> frozenset[str]:
    """Those of the letters that a font has: they look other than what it draws for no letter at all."""
    try:
        font = _opened(file, 16)
        missing = {bytes(font.getmask(c)) for c in ("\uffff", "\U000effff")}
        return frozenset(c for c in letters if bytes(font.getmask(c)) not in missing)
    except (OSError, ValueError):  # no font after all
        return frozenset()
