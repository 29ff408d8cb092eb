"""Images in a folder with one subfolder per class."""

from __future__ import annotations

import functools
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
# What other programs leave beside pictures; and whatever begins with ".".
NO_PICTURES = ("__MACOSX", "@eaDir")
# A file of a few kilobytes can claim any size: what would take more than this to decode is refused by its header.
MOST_PIXELS = 100_000_000
MOST_PIXELS_OF_JPEG = 400_000_000  # where it can be decoded at a reduced scale
LONGEST_SIDE = 65_535


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
        """A hash of the files' names below the root, their sizes and times, labels and names of classes.

        Raises:
          UserError: a file that is gone.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        listed = [(_below(file, self.root), *_size_and_time(file)) for file in self.files]
        return digest(self.classes, self.labels.tobytes(), listed)


def _size_and_time(file: paths.Path) -> tuple[int, int]:
    try:
        return paths.size_and_time(file)
    except OSError as error:
        raise UserError(f"image {file}: expected a file, found none ({_reason(error)})") from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _text(name: str, path: paths.Path) -> str:
    return name if paths.is_remote(path) else paths.text(name)


def _below(file: paths.Path, root: paths.Path) -> str:
    return _text(file.relative_to(root).as_posix(), file)


def load(settings: Mapping[str, Any], split: str) -> FolderSource:
    """A folder `class/name.png` (also jpg, jpeg, webp), classes in alphabetical order.

    Where the folder has `train/` and one of `test/`, `val/`, `validation/`, those are the splits; else files
    are held out by the hash of their name (`test_fraction`, 0.1 by default), also where there is `train/` alone.

    Raises:
      UserError: no such folder, one that cannot be read, no class in it, a class without images, or classes that
        only the held-out split has.
    """
    if not settings["path"]:
        raise UserError("data.path: expected a folder with one subfolder of images per class, found nothing")
    root = paths.path(settings["path"], "data.path")
    if not root.is_dir():
        found = "a file" if root.exists() else "no such folder"
        raise UserError(f"folder {root}: expected a folder of class/name.png, found {found}")
    if _classes(root) == ["train"] and _classes(root / "train"):
        root = root / "train"
    trained, base = _splits(root, split)
    fixed = trained != root
    folders = _classes(trained)
    if not folders:
        raise UserError(f"folder {trained}: expected subfolders of images, one per class, found none")
    if base != trained and (others := sorted(set(_classes(base)) - set(folders))):
        raise UserError(f"folder {base}: expected the classes of {trained}, found another: {others[0]}")
    files: list[paths.Path] = []
    labels: list[int] = []
    passed_over: list[paths.Path] = []
    for label, name in enumerate(folders):
        found = pictures_in(base / name, passed_over) if (base / name).is_dir() else []
        if not found and (split == "train" or not fixed):
            raise no_pictures(base / name, passed_over)
        files += found
        labels += [label] * len(found)
    if not files:
        raise no_pictures(base, passed_over)
    say_passed_over(os.fspath(base), tuple(passed_over))
    if not fixed:
        test = held_out([_below(p, root) for p in files], labels, settings.get("test_fraction", 0.1))
        if split == "test" and not test.any():
            raise UserError(
                f"folder {root}: expected two images of a class, one to hold out as the test split, found none"
            )
        chosen = np.flatnonzero(test if split == "test" else ~test)
        files, labels = [files[i] for i in chosen], [labels[i] for i in chosen]
    names = [_text(name, root) for name in folders]
    size, channels = settings["image_size"], settings["channels"]
    return FolderSource(f"folder {root}", root, names, files, labels, size, channels)


def _splits(root: paths.Path, split: str) -> tuple[paths.Path, paths.Path]:
    """The folder of the training split's classes and that of this split's; both are the root where it has no splits."""
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    if not tests or not (root / "train").is_dir():
        return root, root
    return root / "train", root / "train" if split == "train" else tests[0]


def _classes(root: paths.Path) -> list[str]:
    return [p.name for p in listed(root) if not _ignored(p.name) and p.is_dir()]


def _ignored(name: str) -> bool:
    return name.startswith(".") or name in NO_PICTURES


def listed(folder: paths.Path) -> list[paths.Path]:
    """What is in a folder, in order of name."""
    try:
        return sorted(folder.iterdir(), key=lambda p: p.name)
    except OSError as error:
        raise UserError(f"folder {folder}: expected one that can be read, found: {_reason(error)}") from error


def pictures_in(folder: paths.Path, passed_over: list[paths.Path] | None = None) -> list[paths.Path]:
    """The picture files below a folder, in order of name. Links are followed, into no folder twice.

    Args:
      folder: where to look.
      passed_over: what has a picture's name but is no plain file (a pipe, a device, a dead link) is added to it.

    Raises:
      UserError: a folder that cannot be read.
    """
    found: list[paths.Path] = []
    seen = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        if (here := _identity(folder)) in seen:
            continue
        seen.add(here)
        for item in listed(folder):
            if _ignored(item.name):
                continue
            if item.is_dir():
                waiting.append(item)
            elif item.suffix.lower() in SUFFIXES:
                if paths.is_file(item):
                    found.append(item)
                elif passed_over is not None:
                    passed_over.append(item)
    return sorted(found)


def _identity(folder: paths.Path) -> Any:
    """What tells a folder from others, whatever links lead to it."""
    if paths.is_remote(folder):
        return os.fspath(folder)
    try:
        found = os.stat(folder)
    except OSError as error:
        raise UserError(f"folder {folder}: expected one that can be read, found: {_reason(error)}") from error
    return found.st_dev, found.st_ino


def no_pictures(folder: paths.Path, passed_over: Sequence[paths.Path]) -> UserError:
    """The error for a folder without pictures."""
    found = f"{len(passed_over)} that are no plain files" if passed_over else "none"
    return UserError(f"folder {folder}: expected images ({', '.join(SUFFIXES)}), found {found}")


@functools.cache  # once, however often the folder is read
def say_passed_over(folder: str, passed_over: tuple[paths.Path, ...]) -> None:
    """Says what has a picture's name but isn't read, and how much there is of it."""
    if passed_over:
        first = os.fspath(passed_over[0])
        print(
            f"folder {folder!r}: {len(passed_over)} that are no plain files passed over ({first!r})",
            flush=True,
        )


def read_image(file: os.PathLike, channels: int, image_size: int = 0) -> np.ndarray:
    """uint8 [H, W, channels]; transparent pixels over white, 16 bits a channel rounded down to 8.

    Args:
      file: a PNG, JPEG or WebP file, here or in a bucket.
      channels: 1 or 3.
      image_size: where given, a JPEG may be decoded at a reduced scale that keeps twice this size.

    Raises:
      UserError: the file is missing, no plain file, unreadable, truncated, no image, or larger than `MOST_PIXELS`
        (a JPEG at reduced scale `MOST_PIXELS_OF_JPEG`) or `LONGEST_SIDE`.
    """
    from PIL import Image

    mode = "L" if channels == 1 else "RGB"
    where = (
        file if isinstance(file, paths.Path) else paths.path(file)
    )  # what was listed isn't read as `~user`
    if not paths.is_file(where):
        found = "a directory" if where.is_dir() else "no plain file" if where.exists() else "none"
        raise UserError(f"image {file}: expected a file, found {found}")
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours, and said
    try:
        content = io.BytesIO(where.read_bytes()) if paths.is_remote(where) else os.fspath(where)
        with Image.open(content) as picture:
            if picture.format == "EPS":
                raise UserError(f"image {file}: expected pixels, found PostScript, which is a program")
            _check_size(file, picture, MOST_PIXELS_OF_JPEG if picture.format == "JPEG" else MOST_PIXELS)
            size = picture.size
            if image_size:
                picture.draft(mode, (2 * image_size, 2 * image_size))
            _check_size(file, picture, MOST_PIXELS, size)
            if picture.mode.startswith("I;16") or picture.mode == "I":
                array = (np.clip(np.asarray(picture), 0, 65535) >> 8).astype(np.uint8)
            else:
                if picture.has_transparency_data:
                    picture = over_white(picture)
                array = np.asarray(picture.convert(mode))
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, zlib.error and more
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(
                f"image {file}: expected one that can be read, found: {_reason(error)}"
            ) from error
        raise UserError(f"image {file}: expected a whole image, found a broken one ({error})") from error
    return to_channels(array, channels)


def _check_size(file: os.PathLike, picture: Any, most: int, size: tuple[int, int] | None = None) -> None:
    """Raises UserError where decoding would take too long; `size` is what the file has, if not the picture's."""
    if picture.width * picture.height > most or max(picture.size) > LONGEST_SIDE:
        width, height = size or picture.size
        raise UserError(
            f"image {file}: expected at most {most // 10**6} megapixels and {LONGEST_SIDE} pixels a side, found "
            f"{width} x {height}"
        )


def over_white(picture: Any) -> Any:
    """A picture with transparency, laid over white: RGB."""
    from PIL import Image

    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")
