"""Images to one size, and the random changes of training.

Randomness comes in as uniform numbers in [0, 1), a fixed few for each image, so that an augmented image is a
pure function of (image, numbers), wherever it is computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Uniform numbers that one image takes: shift rows, shift columns, flip, crop scale, crop row, crop column.
DRAWS = 6
# Random crops keep between 80 % and all of the short side (openai/guided-diffusion, image_datasets.py).
SMALLEST_CROP = 0.8
LONG = 8  # times as long as wide: of longer pictures the square alone is enlarged


def to_bytes(values: np.ndarray, most: int = 65_535) -> np.ndarray:
    """Levels of any type to uint8 of the same shape.

    Args:
      values: uint8; whole numbers from 0 to `most` (others are clipped), scaled to 0 to 255 and rounded; or floats,
        from 0 to 1 where none is above 1, else from 0 to 255.
      most: what white is among whole numbers.

    Raises:
      ValueError: a float that is below 0, above 255 or not finite.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind in "iu":
        clipped = np.clip(values, 0, most).astype(np.uint32)
        return ((clipped * 255 + most // 2) // most).astype(np.uint8)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # nan neither
        raise ValueError(f"expected levels from 0 to 1 or from 0 to 255, found {low:g} to {high:g}")
    return np.rint(values * np.float32(255 if high <= 1 else 1)).astype(np.uint8)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [H, W] or [H, W, 1|2|3|4] to [H, W, channels]; colour to grey by ITU-R 601 luminance.

    The second of 2 and the last of 4 channels is opacity: such pixels are laid over white.
    """
    image = image if image.ndim == 3 else image[..., None]
    if image.shape[-1] in (2, 4):
        colour, opacity = image[..., :-1].astype(np.float64), image[..., -1:] / 255
        image = np.rint(255 + (colour - 255) * opacity).astype(np.uint8)
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image[..., :1], 3, axis=-1)
    weights = np.array([0.299, 0.587, 0.114])
    return np.rint(image[..., :3] @ weights).astype(np.uint8)[..., None]


def fit(image: np.ndarray, size: int, crop: str = "center", draws: np.ndarray | None = None) -> np.ndarray:
    """Resizes the short side and cuts a square, as openai/guided-diffusion (ADM) does.

    Halves by box averaging while that keeps at least twice the wanted size, then resizes by a cubic filter.

    Args:
      image: uint8 [H, W, C].
      size: side of the square.
      crop: "center", or "random": a square of 80 % to 100 % of the short side, placed at random.
      draws: [DRAWS] uniform numbers; None gives the centre crop.

    Returns:
      uint8 [size, size, C]; `image` itself where it has that shape and the crop is the centre's.
    """
    random = crop == "random" and draws is not None
    if image.shape[:2] == (size, size) and not random:
        return image
    from PIL import Image

    shorter = size
    if random:
        shorter = size + int(draws[3] * (np.ceil(size / SMALLEST_CROP) - size + 1))
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture = halved(picture, shorter)
    scale = shorter / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    rows, columns = height - size, width - size
    top, left = rows // 2, columns // 2
    if random:
        top, left = int(draws[4] * (rows + 1)), int(draws[5] * (columns + 1))
    if max(width, height) > LONG * shorter:
        x, y = picture.width / width, picture.height / height
        right, bottom = min((left + size) * x, picture.width), min((top + size) * y, picture.height)
        box = (left * x, top * y, right, bottom)
        picture = picture.resize((size, size), resample=Image.Resampling.BICUBIC, box=box)
        top = left = 0
    else:
        picture = picture.resize((width, height), resample=Image.Resampling.BICUBIC)
    array = np.asarray(picture)
    array = array if array.ndim == 3 else array[..., None]
    return array[top : top + size, left : left + size]


def halved(picture: Any, least: int) -> Any:
    """A PIL picture, "L" or "RGB", halved by box averaging while its short side stays at least `least`."""
    from PIL import Image

    while min(picture.size) >= 2 * least:
        picture = picture.resize((picture.width // 2, picture.height // 2), resample=Image.Resampling.BOX)
    return picture


def augment(images: np.ndarray, draws: np.ndarray, shift: int = 0, flip: bool = False) -> np.ndarray:
    """Random shifts (the edge is repeated) and mirror images.

    Args:
      images: uint8 [b, H, W, C].
      draws: [b, DRAWS] uniform numbers.
      shift: largest shift in pixels, along rows and along columns.
      flip: mirror half of the images left to right.
    """
    if not (shift or flip):
        return images
    b, height, width, _ = images.shape
    offsets = np.floor(draws[:, :2] * (2 * shift + 1)).astype(np.int64) - shift
    rows = np.clip(np.arange(height) + offsets[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) + offsets[:, 1:], 0, width - 1)
    if flip:
        columns = np.where(draws[:, 2:3] < 0.5, columns[:, ::-1], columns)
    return images[np.arange(b)[:, None, None], rows[:, :, None], columns[:, None, :]]


def uniform_draws(seed: int, positions: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) for each position of a stream: float64 [b, DRAWS], a pure function of both.

    SplitMix64 (Steele, Lea, Flood 2014) as a counter-based generator: number j of position i is output
    i * DRAWS + j of the sequence that starts at `seed`.
    """
    first = np.asarray(positions, dtype=np.uint64)[:, None] * np.uint64(DRAWS)
    counter = first + np.arange(1, DRAWS + 1, dtype=np.uint64)
    z = np.uint64(seed) + counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
