"""Sets of images as the field exchanges them for evaluation: ADM's .npz, statistics of FID, folders, features."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from vargen import paths
from vargen.cli import array_files
from vargen.errors import UserError

WANTED = "an .npz with arr_0 (images), mu and sigma (statistics) or features"
PAIRS = (("mu", "sigma"), ("mu_s", "sigma_s"))  # of pool_3's features and of the spatial ones


@dataclasses.dataclass(frozen=True)
class Images:
    """Images somewhere.

    Attributes:
      name: for messages.
      count: how many.
      size: height and width, pixels.
      batches: uint8 [b, H, W, C] of at most the given number each, in order.
    """

    name: str
    count: int
    size: tuple[int, int]
    batches: Callable[[int], Iterator[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Set:
    """What a file holds; None of what it doesn't.

    Attributes:
      name: for messages.
      images: ADM's arr_0.
      statistics: mean [F] and covariance [F, F] of pool_3 and of the spatial features, each None where it isn't there.
      features: float [M, F], of any network.
    """

    name: str
    images: Images | None
    statistics: tuple[tuple[np.ndarray, np.ndarray] | None, ...] = (None, None)
    features: np.ndarray | None = None


def read(path: paths.PathLike, flag: str) -> Set:
    """What a file of images, statistics or features holds, or a folder of pictures; images aren't read yet.

    Raises:
      UserError: no such file, a broken one, or arrays of other kinds.
    """
    name, where = f"{flag} {path}", paths.path(path, flag)
    if where.is_dir():
        return Set(name, _folder(where, name))
    found = array_files.headers(path, flag, WANTED)
    images = None
    if "arr_0" in found:
        dtype, shape = found["arr_0"]
        if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or not math.prod(shape):
            raise UserError(f"{name}: arr_0: expected images uint8 [M, H, W, 3], found {dtype} {list(shape)}")
        batches = functools.partial(array_files.rows, path, flag, "arr_0")
        images = Images(name, shape[0], (shape[1], shape[2]), batches)
    wanted = dict.fromkeys((key for pair in PAIRS for key in pair), _floats)
    arrays = array_files.read_many(path, flag, wanted | dict(features=_floats))
    statistics = tuple(_statistics(name, arrays, pair) for pair in PAIRS)
    features = arrays.get("features")
    if features is not None and (features.ndim != 2 or not features.size):
        raise UserError(f"{name}: features: expected [M, F], found {list(features.shape)}")
    if images is None and features is None and statistics[0] is None:
        raise UserError(f"{name}: expected {WANTED}, found {', '.join(found) or 'nothing'}")
    return Set(name, images, statistics, features)


def _floats(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype.kind != "f":
        raise UserError(f"expected floats, found {dtype} {list(shape)}")


def _statistics(
    name: str, arrays: dict[str, np.ndarray], pair: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray] | None:
    if not any(key in arrays for key in pair):
        return None
    mean, covariance = (np.asarray(arrays.get(key, np.zeros(0)), np.float64) for key in pair)
    if mean.ndim != 1 or not mean.size or covariance.shape != mean.shape * 2:
        raise UserError(
            f"{name}: {' and '.join(pair)}: expected [F] and [F, F], found {list(mean.shape)} and "
            f"{list(covariance.shape)}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{name}: {' and '.join(pair)}: expected finite numbers, found others")
    return mean, covariance


def _folder(path: paths.Path, name: str) -> Images:
    from vargen.data import image_file, listing

    passed_over = listing.PassedOver()
    files = listing.pictures_in(path, passed_over)
    if not files:
        raise listing.no_pictures(path, passed_over)
    passed_over.say(path)
    height, width, _ = image_file.read_image(files[0], 3).shape

    def pixels(file: paths.Path) -> np.ndarray:
        image = image_file.read_image(file, 3)
        if image.shape[:2] != (height, width):
            raise UserError(
                f"{file}: expected {height}x{width} pixels as the first of {path}, found "
                f"{image.shape[0]}x{image.shape[1]}"
            )
        return image

    def batches(size: int) -> Iterator[np.ndarray]:
        for start in range(0, len(files), size):
            yield np.stack([pixels(file) for file in files[start : start + size]])

    return Images(name, len(files), (height, width), batches)
