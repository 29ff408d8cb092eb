"""Images to one size, and the random changes of training.

Randomness comes in as uniform numbers in [0, 1), a fixed few for each image, so that an augmented image is a
pure function of (image, numbers), wherever it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Uniform numbers that one image takes: shift rows, shift columns, flip, crop scale, crop row, crop column.
DRAWS = 6
# Random crops keep between 80 % and all of the short side (openai/guided-diffusion, image_datasets.py).
CROP_RANGE = (1.0, 1.25)
LONG = 8  # times as long as wide: of longer pictures the square alone is enlarged


def to_bytes(values: np.ndarray, most: int = 65_535) -> np.ndarray:
    """Levels of any type to uint8 of the same shape.

    Args:
      values: uint8; whole numbers from 0 to `most`, scaled to 0 to 255 and rounded; or floats, from 0 to 1 where none
        is above 1, else from 0 to 255.
      most: what white is among whole numbers.

    Raises:
      ValueError: a whole number that is below 0 or above `most`; a float that is below 0, above 255 or not finite.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind in "iu":
        if values.min() < 0 or values.max() > most:
            raise ValueError(
                f"expected whole levels from 0 to {most}, found {values.min()} to {values.max()}"
            )
        return ((values.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)
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


def fit(
    image: np.ndarray,
    size: int,
    crop: str = "center",
    draws: np.ndarray | None = None,
    *,
    crop_range: Sequence[float] = CROP_RANGE,
    filter: str = "cubic",
    mirrored: bool = False,
) -> np.ndarray:
    """Scales the shorter side and cuts a square.

    Args:
      image: uint8 [H, W, C].
      size: side of the square.
      crop: "center"; "random": a square at a random place; "five": the corners or the middle of the largest square in
        the middle, as `draws` chooses (torchvision's FiveCrop, after ADM's centre crop).
      draws: [DRAWS] uniform numbers; None gives the centre crop.
      crop_range: shorter sides, in `size`, that the picture is scaled to for the crop "random", which draws one from
        the first to the last, and "five", which takes each.
      filter: "cubic": halves by box averaging while that keeps at least twice the wanted size, then a cubic filter
        (openai/guided-diffusion, ADM); "lanczos": Lanczos's filter at once (torchvision's Resize).
      mirrored: whether the result is mirrored afterwards: "five" then counts columns from the right.

    Returns:
      uint8 [size, size, C]; `image` itself where it has that shape and the crop is the centre's.
    """
    if draws is None:
        crop = "center"
    if image.shape[:2] == (size, size) and crop == "center":
        return image
    from PIL import Image

    shorter = size
    if crop == "random":
        low, high = (math.ceil(round(size * crop_range[i], 6)) for i in (0, -1))
        shorter = low + int(draws[3] * (high - low + 1))
    elif crop == "five":
        which, place = divmod(int(draws[3] * 5 * len(crop_range)), 5)
        shorter = int(size * crop_range[which])
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resample = Image.Resampling.LANCZOS
    if filter == "cubic":
        resample = Image.Resampling.BICUBIC
        picture = halved(picture, shorter)
        scale = shorter / min(picture.size)
        width, height = (max(size, round(side * scale)) for side in picture.size)
    else:
        width, height = (shorter * side // min(picture.size) for side in picture.size)
    rows, columns = height - size, width - size
    top, left = rows // 2, columns // 2
    if crop == "random":
        top, left = int(draws[4] * (rows + 1)), int(draws[5] * (columns + 1))
    elif crop == "five":
        rest = shorter - size
        y, x = [(0, 0), (0, rest), (rest, 0), (rest, rest), (round(rest / 2),) * 2][place]
        top, left = (height - shorter) // 2 + y, (width - shorter) // 2 + (rest - x if mirrored else x)
    if max(width, height) > LONG * shorter:
        x, y = picture.width / width, picture.height / height
        right, bottom = min((left + size) * x, picture.width), min((top + size) * y, picture.height)
        box = (left * x, top * y, right, bottom)
        picture = picture.resize((size, size), resample=resample, box=box)
        top = left = 0
    else:
        picture = picture.resize((width, height), resample=resample)
    array = np.asarray(picture)
    array = array if array.ndim == 3 else array[..., None]
    return array[top : top + size, left : left + size]


def cut(mask: np.ndarray, size: int) -> np.ndarray:
    """A mask through the centre crop that `fit` takes of a picture of its shape: bool [size, size].

    Args:
      mask: bool [H, W].
      size: side of the square.

    Returns:
      Where more than half of a pixel's area is true.
    """
    height, width = mask.shape
    h, w = height, width
    while min(h, w) >= 2 * size:  # as `halved`
        h, w = h // 2, w // 2
    scaled = [max(size, round(side * (size / min(h, w)))) for side in (h, w)]
    down, across = (
        _shares(side, to, (to - size) // 2, size) for side, to in zip(mask.shape, scaled, strict=True)
    )
    return down @ mask.astype(np.float32) @ across.T > 0.5 + 1e-6


def _shares(side: int, scaled: int, first: int, size: int) -> np.ndarray:
    """float32 [size, side]: of pixels from `first` on, when `side` is scaled to `scaled`, each old one's share."""
    edges = (first + np.arange(size + 1)) * (side / scaled)
    old = np.arange(side)
    inside = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return (np.maximum(inside, 0) * (scaled / side)).astype(np.float32)


def halved(picture: Any, least: int) -> Any:
    """A PIL picture, "L" or "RGB", halved by box averaging while its short side stays at least `least`."""
    from PIL import Image

    while min(picture.size) >= 2 * least:
        picture = picture.resize((picture.width // 2, picture.height // 2), resample=Image.Resampling.BOX)
    return picture


def augment(images: np.ndarray, draws: np.ndarray, shift: int = 0, flip: bool = False) -> np.ndarray:
    """Random shifts (the edge is repeated) and mirror images, the same for all frames of a clip.

    Args:
      images: uint8 [b, H, W, C], or [b, T, H, W, C].
      draws: [b, DRAWS] uniform numbers.
      shift: largest shift in pixels, along rows and along columns.
      flip: mirror half of the images left to right.
    """
    if not (shift or flip):
        return images
    b, *_, height, width, _ = images.shape
    offsets = np.floor(draws[:, :2] * (2 * shift + 1)).astype(np.int64) - shift
    rows = np.clip(np.arange(height) + offsets[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) + offsets[:, 1:], 0, width - 1)
    if flip:
        columns = np.where(is_mirrored(draws)[:, None], columns[:, ::-1], columns)
    frames = np.moveaxis(images.reshape(b, -1, *images.shape[-3:]), 1, 3)
    changed = frames[np.arange(b)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return np.moveaxis(changed, 3, 1).reshape(images.shape)


def is_mirrored(draws: np.ndarray) -> np.ndarray:
    """bool [b]: which images `augment` mirrors where it may, for draws [b, DRAWS]."""
    return draws[:, 2] < 0.5


def views(settings: Mapping[str, Any]) -> int:
    """How many views of a picture there are under `config.data`'s changes; 0 where they are drawn at random."""
    crop = settings.get("crop", "center")
    if crop == "random" or settings.get("shift", 0):
        return 0
    crops = 5 * len(settings.get("crop_range", CROP_RANGE)) if crop == "five" else 1
    return crops * (2 if settings.get("flip", False) else 1)


def chosen(draws: np.ndarray, view: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Draws [b, DRAWS] that give the views number `view` int [b] (modulo their number), where they can be counted."""
    count = views(settings)
    if not count:
        return draws
    draws, view = draws.copy(), view % count
    crops = count // 2 if settings.get("flip", False) else count
    draws[:, 2] = np.where(view < crops, 0.75, 0.25)  # see `is_mirrored`
    draws[:, 3] = (view % crops + 0.5) / crops
    return draws


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
