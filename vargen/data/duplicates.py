"""Which files hold the same bytes: by size, then by a piece of the middle, and only then by all of it."""

from __future__ import annotations

import collections
import concurrent.futures
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from vargen import progress

PIECE = 16_384  # bytes; smaller files are read whole at once
READERS, AT_ONCE = 16, 64
PATIENCE = 2.0  # seconds after which it is said how far it is


def same_content(files: Sequence[str]) -> np.ndarray:
    """Numbers int [M], equal where files of this machine hold the same bytes.

    A file that cannot be read is like no other. Only files of equal size are read.
    """
    sizes = [_size(file) for file in files]
    numbers = np.arange(len(files))
    for group in _compared(files, sizes, _collisions(range(len(files)), sizes.__getitem__)):
        numbers[group] = group[0]
    return numbers


def copies(files: Sequence[str], originals: Sequence[str], most: int | None = None) -> int | None:
    """How many of some files hold the same bytes as one of the others; None where more than `most` had to be read."""
    both, own = [*files, *originals], len(files)
    sizes = [_size(file) for file in both]
    groups = _collisions(range(len(both)), sizes.__getitem__)
    groups = [group for group in groups if group[0] < own <= group[-1]]
    if most is not None and sum(map(len, groups)) > most:
        return None
    groups = [group for group in _compared(both, sizes, groups) if group[-1] >= own]
    return sum(i < own for group in groups for i in group)


def _compared(files: Sequence[str], sizes: Sequence[int | None], groups: list[list[int]]) -> list[list[int]]:
    """Groups of files of equal size, cut into those of the same bytes."""
    groups = _split(groups, lambda i: _digest(files[i], sizes[i], PIECE), "comparing pictures")
    longer = [group for group in groups if sizes[group[0]] > PIECE]
    same = [group for group in groups if sizes[group[0]] <= PIECE]
    return same + _split(longer, lambda i: _digest(files[i], sizes[i]), "comparing equal pieces")


def _size(file: str) -> int | None:
    try:
        return os.stat(file).st_size
    except OSError:
        return None


def _collisions(items: Iterable[int], key: Callable[[int], Any]) -> list[list[int]]:
    """Groups of two and more items with the same key; None is like no other."""
    found: dict[Any, list[int]] = collections.defaultdict(list)
    for item in items:
        if (value := key(item)) is not None:
            found[value].append(item)
    return [group for group in found.values() if len(group) > 1]


def _split(groups: list[list[int]], key: Callable[[int], Any], title: str) -> list[list[int]]:
    """The groups, each cut into those of its items that have the same key; keys are computed by threads."""
    items = [(i, item) for i, group in enumerate(groups) for item in group]
    some = [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]
    known: dict[int, tuple[int, bytes] | None] = {}

    def keys_of(part: list[tuple[int, int]]) -> list[bytes | None]:
        return [key(item) for _, item in part]

    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        found = progress.each(pool.map(keys_of, some), len(items), title, unit="files", delay=PATIENCE)
        for keys, part in zip(found, some):
            known |= {item: None if k is None else (i, k) for (i, item), k in zip(part, keys)}
    return _collisions(known, known.get)


def _digest(file: str, size: int, most: int = 0) -> bytes | None:
    """A hash of a file, or of `most` bytes of its middle; None where it cannot be read."""
    try:
        with open(file, "rb") as opened:
            if most and size > most:
                opened.seek((size - most) // 2)
                return hashlib.sha256(opened.read(most)).digest()
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return None
