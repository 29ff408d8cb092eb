"""IDX files, the form of MNIST (Y. LeCun, yann.lecun.com/exdb/mnist) and Fashion-MNIST (arXiv 1708.07747)."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from vargen import paths
from vargen.data import transforms
from vargen.data.sources import MOST_MEMORY, ArraySource, check_memory
from vargen.errors import UserError

PREFIXES = dict(train="train", test="t10k")  # of each split's files
CLASSES = "classes.txt"
# By the SHA-256 of the training labels: what they mean, which IDX files don't say.
KNOWN = {
    "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}


def load(settings: Mapping[str, Any], split: str) -> ArraySource:
    """A folder of `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and `t10k-...`, held out; each may end in .gz.

    Pictures are scaled to `image_size` as those of folders are. Classes are the lines of `classes.txt`, where it lies
    there; Fashion-MNIST's own names, where the training labels are its; else the labels' numbers.

    Raises:
      UserError: no such folder or file, one that is broken or of another form, as many labels as there are no images,
        a label without a name.
    """
    folder = _folder(settings["path"])
    labels = {name: _labels(folder, prefix) for name, prefix in PREFIXES.items()}
    classes = _classes(folder, labels)
    file, stored = _read(folder, f"{PREFIXES[split]}-images", 3)
    if len(stored) != len(labels[split]):
        raise UserError(
            f"idx {file}: expected {len(labels[split])} images, one for each label, found {len(stored)}"
        )
    size, channels, name = settings["image_size"], settings["channels"], f"idx {folder}"
    check_memory(name, len(stored), size, channels)
    images = np.empty((len(stored), size, size, channels), np.uint8)
    for image, made in zip(stored, images, strict=True):
        made[...] = transforms.fit(image[..., None], size)  # one grey level for all channels
    return ArraySource(name, classes, images, labels[split])


def _folder(text: str) -> paths.Path:
    if not text:
        raise UserError("data.path: expected the folder of IDX files, found nothing")
    folder = paths.path(text, "data.path")
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise UserError(
            f"idx {folder}: expected a folder of train-images-idx3-ubyte and others, found {found}"
        )
    return folder


def _labels(folder: paths.Path, prefix: str) -> np.ndarray:
    return _read(folder, f"{prefix}-labels", 1)[1]


def _classes(folder: paths.Path, labels: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the classes, as many as the labels of both splits need."""
    count = 1 + max(int(some.max(initial=0)) for some in labels.values())
    file = folder / CLASSES
    if paths.is_file(file):
        try:
            names = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise UserError(f"idx {file}: expected names of classes in UTF-8, found {error}") from error
        if len(names) < count:
            raise UserError(f"idx {file}: expected names of {count} classes, found {len(names)}")
        return names
    known = KNOWN.get(digest_of(labels["train"]))
    return [str(i) for i in range(count)] if known is None else list(known)


def digest_of(labels: np.ndarray) -> str:
    """The SHA-256 of labels uint8 [M], by which `KNOWN` finds sets."""
    return hashlib.sha256(labels.tobytes()).hexdigest()


def _read(folder: paths.Path, stem: str, dimensions: int) -> tuple[paths.Path, np.ndarray]:
    """An IDX file of bytes, uint8 of so many dimensions, and where it lies."""
    name = f"{stem}-idx{dimensions}-ubyte"
    file = next((f for f in (folder / name, folder / f"{name}.gz") if paths.is_file(f)), None)
    if file is None:
        raise UserError(f"idx {folder}: expected {name} or {name}.gz, found none")
    try:
        with file.open("rb") as raw:
            content = gzip.GzipFile(fileobj=raw) if file.suffix == ".gz" else raw
            return file, _array(content, dimensions)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        broken = isinstance(error, (OSError, EOFError, zlib.error))
        found = f"expected a whole file, found a broken one ({error})" if broken else str(error)
        raise UserError(f"idx {file}: {found}") from error


def _array(content: BinaryIO, dimensions: int) -> np.ndarray:
    """Raises ValueError where it isn't what an IDX file of bytes should hold."""
    magic, wanted = content.read(4), bytes((0, 0, 8, dimensions))
    if magic != wanted:
        raise ValueError(
            f"expected an IDX file that begins with {wanted.hex()}, found {magic.hex() or 'nothing'}"
        )
    header = content.read(4 * dimensions)
    shape = tuple(np.frombuffer(header[: len(header) // 4 * 4], ">u4").tolist())
    if len(shape) < dimensions or not all(shape[1:]):
        raise ValueError(f"expected {dimensions} sizes, found {list(shape)}")
    size = math.prod(shape)
    if size > MOST_MEMORY:
        raise ValueError(f"expected at most {MOST_MEMORY} bytes, found sizes {list(shape)}")
    data = content.read(size + 1)
    if len(data) != size:
        found = "more" if len(data) > size else str(len(data))
        raise ValueError(f"expected {size} bytes of {' x '.join(map(str, shape))}, found {found}")
    return np.frombuffer(data, np.uint8).reshape(shape)
