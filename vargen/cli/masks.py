"""What stays of pictures, as a flag says it: a named part, a mask in a file, or a number of levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vargen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

PARTS = ("top", "bottom", "left", "right", "border")


def read(name: str, size: tuple[int, int], shapes: Mapping[str, tuple[int, int]]) -> np.ndarray | int:
    """The pixels that stay, bool [H, W], or a number of levels.

    Args:
      name: one of `PARTS`; a number; or a picture: white stays, and where any of it is transparent, what is opaque.
        It goes through the crop that its pictures go through.
      size: height and width that the model sees, of a square where `name` is a picture.
      shapes: by the pictures' names, height and width of each.

    Raises:
      UserError: no such part, no such picture, or one of other proportions than the pictures have.
    """
    import numpy as np

    from vargen import paths
    from vargen.data import image_file, transforms

    height, width = size
    down, across = np.mgrid[:height, :width]
    middle = (abs(2 * down + 1 - height) < height // 2 + 1) & (abs(2 * across + 1 - width) < width // 2 + 1)
    found = dict(
        top=down < height // 2,
        bottom=down >= height // 2,
        left=across < width // 2,
        right=across >= width // 2,
        border=~middle,
    ).get(name)
    if found is not None:
        return found
    if name.isascii() and name.isdigit():
        return int(name[:9])
    path = paths.path(name, "--keep")
    if not paths.is_file(path):
        raise UserError(
            f"--keep {name}: expected {', '.join(PARTS)}, a number of levels, or a picture, found none"
        )
    mask = image_file.read_mask(path)
    h, w = mask.shape
    for picture, (rows, columns) in shapes.items():
        if h * columns != w * rows:
            raise UserError(
                f"--keep {name}: expected the proportions of {picture}, {columns} x {rows} pixels, found {w} x {h}"
            )
    return transforms.cut(mask, height)
