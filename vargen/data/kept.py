"""Pictures kept in memory, so that a few thousand are decoded once and not once an epoch."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from vargen import paths
from vargen.data.image_file import read_image


def stamp(file: paths.Path) -> tuple[int, int] | None:
    """A file's size and time; None where there is none."""
    try:
        return paths.size_and_time(file)
    except OSError:
        return None


class Kept:
    """Pictures as `read_image` gives them.

    What is full takes nothing more; a file that has another size or time than when it was read is read anew.

    Args:
      most: bytes of pixels.
    """

    def __init__(self, most: int):
        self.most = most
        self.bytes = 0
        self._pictures: dict[tuple[str, int, int], tuple[Any, np.ndarray]] = {}
        self._lock = threading.Lock()

    def read(self, file: paths.Path, channels: int, image_size: int) -> np.ndarray:
        """`read_image` of the same arguments; the array is not to be written to."""
        key = (os.fspath(file), channels, image_size)
        now = None if paths.is_remote(file) else stamp(file)
        was, image = self._pictures.get(key, (None, None))
        if image is not None and was == now:
            return image
        image = read_image(file, channels, image_size)
        with self._lock:
            before = self._pictures.pop(key, (None, None))[1]
            self.bytes += image.nbytes - (0 if before is None else before.nbytes)
            if self.bytes <= self.most:
                self._pictures[key] = now, image
            else:
                self.bytes -= image.nbytes
        return image


KEPT = Kept(2**30)
