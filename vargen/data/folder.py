"""Images in a folder with one subfolder per class."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vargen import paths
from vargen.data.sources import Source, digest, held_out
from vargen.data.transforms import to_channels
from vargen.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
TEST_FOLDERS = ("test", "val", "validation")
NO_PICTURES = (
    "__MACOSX",
    "@eaDir",
)  # what other programs leave beside pictures; and whatever begins with "."
# A file of a few kilobytes can claim any size: what would take more than this to decode is refused, named.
MOST_PIXELS = 100_000_000


class FolderSource(Source):
    """Files read when they are asked for, at their own size."""

    def __init__(
        self,
        name: str,
        root: paths.Path,
        classes: Sequence[str],
        files: Sequence[paths.Path],
        labels: Sequence[int],
        image_size: int,
        channels: int,
    ):
        super().__init__(name, classes, image_size, channels)
        self.root = root
        self.files = list(files)
        self.labels = np.asarray(labels, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = read_image(self.files[index], self.channels, self.image_size)
        return dict(image=image, label=int(self.labels[index]))

    def fingerprint(self) -> str:
        """A hash of the files' names below the root, their sizes and times, labels and names of classes."""
        listed = [(os.fspath(file.relative_to(self.root)), *_size_and_time(file)) for file in self.files]
        return digest(self.classes, self.labels.tobytes(), listed)


def _size_and_time(file: paths.Path) -> tuple[int, int]:
    if paths.is_remote(file):
        stat = file.stat()
        return stat.length, int(stat.mtime or 0)
    found = os.stat(file)
    return found.st_size, found.st_mtime_ns


def load(settings: Mapping[str, Any], split: str) -> FolderSource:
    """A folder `class/name.png` (also jpg, jpeg, webp), classes in alphabetical order.

    Where the folder has `train/` and one of `test/`, `val/`, `validation/`, those are the splits; else files
    are held out by the hash of their name (`test_fraction`, 0.1 by default).

    Raises:
      UserError: no such folder, no class in it, or no image in a split.
    """
    if not settings["path"]:
        raise UserError("data.path: expected a folder with one subfolder of images per class, found nothing")
    root = paths.path(settings["path"], "data.path")
    if not root.is_dir():
        found = "a file" if root.exists() else "no such folder"
        raise UserError(f"folder {root}: expected a folder of class/name.png, found {found}")
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    fixed = (root / "train").is_dir() and bool(tests)
    base = (root / "train" if split == "train" else tests[0]) if fixed else root
    names = _classes(root / "train" if fixed else root)
    if not names:
        raise UserError(f"folder {root}: expected subfolders of images, one per class, found none")
    files: list[paths.Path] = []
    labels: list[int] = []
    passed_over: list[paths.Path] = []
    for label, name in enumerate(names):
        found = pictures_in(base / name, passed_over) if (base / name).is_dir() else []
        if not found and (split == "train" or not fixed):
            raise UserError(f"folder {base / name}: expected images ({', '.join(SUFFIXES)}), found none")
        files += found
        labels += [label] * len(found)
    if not files:
        raise UserError(f"folder {base}: expected images ({', '.join(SUFFIXES)}) in subfolders, found none")
    if passed_over and split == "train":
        print(
            f"folder {base}: {len(passed_over)} that are no plain files passed over ({passed_over[0]})",
            flush=True,
        )
    if not fixed:
        keys = [p.relative_to(root).as_posix() for p in files]
        test = held_out(keys, labels, settings.get("test_fraction", 0.1))
        chosen = np.flatnonzero(test if split == "test" else ~test)
        files, labels = [files[i] for i in chosen], [labels[i] for i in chosen]
    size, channels = settings["image_size"], settings["channels"]
    return FolderSource(f"folder {root}", root, names, files, labels, size, channels)


def _classes(root: paths.Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if not _ignored(p.name) and p.is_dir())


def _ignored(name: str) -> bool:
    return name.startswith(".") or name in NO_PICTURES


def pictures_in(folder: paths.Path, passed_over: list[paths.Path] | None = None) -> list[paths.Path]:
    """The picture files below a folder, in order of name. Links are followed, in circles no further than once.

    Args:
      folder: where to look.
      passed_over: what has a picture's name but is no plain file (a pipe, a device, a dead link) is added to it.
    """
    found: list[paths.Path] = []

    def walk(folder: paths.Path, above: tuple) -> None:
        here = os.fspath(folder) if paths.is_remote(folder) else _identity(folder)
        if here in above:
            return
        for item in sorted(folder.iterdir(), key=lambda p: p.name):
            if _ignored(item.name):
                continue
            if item.is_dir():
                walk(item, (*above, here))
            elif item.suffix.lower() in SUFFIXES:
                if paths.is_file(item):
                    found.append(item)
                elif passed_over is not None:
                    passed_over.append(item)

    walk(folder, ())
    return sorted(found)


def _identity(folder: paths.Path) -> tuple[int, int]:
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def read_image(file: os.PathLike, channels: int, image_size: int = 0) -> np.ndarray:
    """uint8 [H, W, channels]; transparent pixels over white.

    Args:
      file: a PNG, JPEG or WebP file, here or in a bucket.
      channels: 1 or 3.
      image_size: where given, a JPEG may be decoded at a reduced scale that keeps twice this size.

    Raises:
      UserError: the file is missing, no plain file, truncated, no image, or has more than `MOST_PIXELS`.
    """
    from PIL import Image

    mode = "L" if channels == 1 else "RGB"
    where = paths.path(file)
    if not paths.is_file(where):
        found = "a directory" if where.is_dir() else "no plain file" if where.exists() else "none"
        raise UserError(f"image {file}: expected a file, found {found}")
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours, and said
    try:
        with Image.open(
            io.BytesIO(where.read_bytes()) if paths.is_remote(where) else os.fspath(where)
        ) as picture:
            if image_size:
                picture.draft(mode, (2 * image_size, 2 * image_size))
            if picture.width * picture.height > MOST_PIXELS:
                raise UserError(
                    f"image {file}: expected at most {MOST_PIXELS // 10**6} megapixels, found "
                    f"{picture.width} x {picture.height}"
                )
            if picture.has_transparency_data:
                picture = over_white(picture)
            array = np.asarray(picture.convert(mode))
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, zlib.error and more
        raise UserError(f"image {file}: expected a whole image, found a broken one ({error})") from error
    return to_channels(array, channels)


def over_white(picture: Any) -> Any:
    """A picture with transparency, laid over white: RGB."""
    from PIL import Image

    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")
