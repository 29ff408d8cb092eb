"""Pictures for people: arrays of images to PNG files, labelled grids and data addresses. Needs Pillow."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vargen import paths

_PAPER, _INK = (250, 249, 246), (60, 60, 64)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float images in [-1, 1], [..., H, W, C], to uint8 of the same shape; uint8 comes back as it is."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    return np.clip(np.round((images.astype(np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def to_pil(image: np.ndarray, scale: int = 1) -> Image.Image:
    """One image [H, W, C], uint8 or float in [-1, 1], C = 1 or 3, each pixel drawn as `scale` x `scale`."""
    pixels = to_uint8(image)
    pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def save(picture: Image.Image | np.ndarray, where: paths.PathLike) -> None:
    """Writes a picture, PIL's or an image as of `to_pil`, as a PNG that appears whole or not at all."""
    picture = to_pil(picture) if isinstance(picture, np.ndarray) else picture
    with paths.replacing(where) as file:
        picture.save(file, "PNG", optimize=True)


def data_address(image: np.ndarray) -> str:
    """One image [H, W, C] as a `data:image/png;base64,...` address, to stand inside a page."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "PNG", optimize=True)
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
      images: [rows, columns, H, W, C], uint8 or float in [-1, 1].
      row_labels: one per row, drawn on the left; none for no labels.
      column_labels: one per column, drawn above.
      scale: size of one pixel; None makes small images about 64 pixels wide.
    """
    rows, columns, height, width, _ = images.shape
    scale = scale or display_scale(height)
    cell_height, cell_width = height * scale, width * scale
    row_labels, column_labels = ([_drawable(x) for x in labels] for labels in (row_labels, column_labels))
    gap = max(4, cell_height // 16)
    font = ImageFont.load_default(size=max(14, min(20, cell_height // 4)))
    margin = 3 * gap
    text_width = max((int(font.getlength(label)) for label in row_labels), default=0)
    left = margin + (text_width + 2 * gap if row_labels else 0)
    top = margin + (int(font.size * 1.2) + gap if column_labels else 0)
    size = (
        left + columns * (cell_width + gap) - gap + margin,
        top + rows * (cell_height + gap) - gap + margin,
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for r in range(rows):
        y = top + r * (cell_height + gap)
        if row_labels:
            draw.text((left - 2 * gap, y + cell_height // 2), row_labels[r], _INK, font, anchor="rm")
        for c in range(columns):
            sheet.paste(to_pil(images[r, c], scale).convert("RGB"), (left + c * (cell_width + gap), y))
    for c, label in enumerate(column_labels):
        draw.text(
            (left + c * (cell_width + gap) + cell_width // 2, top - gap), label, _INK, font, anchor="ms"
        )
    return sheet


def _drawable(label: str) -> str:
    """Pillow's own font knows little beyond ASCII."""
    return label.replace("×", "x").encode("ascii", "replace").decode()
