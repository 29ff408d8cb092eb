"""Images in a folder with one subfolder per class."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vargen.data.sources import Source, held_out
from vargen.data.transforms import to_channels
from vargen.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
TEST_FOLDERS = ("test", "val", "validation")


class FolderSource(Source):
    """Files read when they are asked for, at their own size."""

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        files: Sequence[pathlib.Path],
        labels: Sequence[int],
        image_size: int,
        channels: int,
    ):
        super().__init__(name, classes, image_size, channels)
        self.files = list(files)
        self.labels = np.asarray(labels, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = read_image(self.files[index], self.channels, self.image_size)
        return dict(image=image, label=int(self.labels[index]))


def load(settings: Mapping[str, Any], split: str) -> FolderSource:
    """A folder `class/name.png` (also jpg, jpeg, webp), classes in alphabetical order.

    Where the folder has `train/` and one of `test/`, `val/`, `validation/`, those are the splits; else files
    are held out by the hash of their name (`test_fraction`, 0.1 by default).

    Raises:
      UserError: no such folder, no class in it, or no image in a split.
    """
    path = settings["path"]
    if not path:
        raise UserError("data.path: expected a folder with one subfolder of images per class, found nothing")
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"folder {root}: expected a folder of class/name.png, found no such folder")
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    fixed = (root / "train").is_dir() and bool(tests)
    base = (root / "train" if split == "train" else tests[0]) if fixed else root
    names = _classes(root / "train" if fixed else root)
    if not names:
        raise UserError(f"folder {root}: expected subfolders of images, one per class, found none")
    files: list[pathlib.Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(p for p in (base / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        files += found
        labels += [label] * len(found)
    if not files:
        raise UserError(f"folder {base}: expected images ({', '.join(SUFFIXES)}) in subfolders, found none")
    if not fixed:
        keys = [p.relative_to(root).as_posix() for p in files]
        test = held_out(keys, labels, settings.get("test_fraction", 0.1))
        chosen = np.flatnonzero(test if split == "test" else ~test)
        files, labels = [files[i] for i in chosen], [labels[i] for i in chosen]
    return FolderSource(f"folder {root}", names, files, labels, settings["image_size"], settings["channels"])


def _classes(root: pathlib.Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def read_image(file: pathlib.Path, channels: int, image_size: int = 0) -> np.ndarray:
    """uint8 [H, W, channels]; transparent pixels over white.

    Args:
      file: a PNG, JPEG or WebP file.
      channels: 1 or 3.
      image_size: where given, a JPEG may be decoded at a reduced scale that keeps twice this size.

    Raises:
      UserError: the file is missing, truncated or no image.
    """
    from PIL import Image

    mode = "L" if channels == 1 else "RGB"
    try:
        with Image.open(file) as picture:
            if image_size:
                picture.draft(mode, (2 * image_size, 2 * image_size))
            if picture.has_transparency_data:
                picture = over_white(picture)
            array = np.asarray(picture.convert(mode))
    except FileNotFoundError as error:
        raise UserError(f"image {file}: expected a file, found none") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, zlib.error and more
        raise UserError(f"image {file}: expected a whole image, found a broken one ({error})") from error
    return to_channels(array, channels)


def over_white(picture: Any) -> Any:
    """A picture with transparency, laid over white: RGB."""
    from PIL import Image

    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")
