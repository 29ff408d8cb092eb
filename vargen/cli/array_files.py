"""Arrays that a user names in a file (.npy, .npz): the header is read and checked before anything is allocated.

Only plain files are opened, so that a pipe or a device doesn't hang; nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from vargen import paths
from vargen.errors import UserError

# Gets the dtype and the shape that a header claims; raises UserError where they aren't wanted.
Check = Callable[[np.dtype, tuple[int, ...]], None]


def read(path: paths.PathLike, name: str, check: Check) -> np.ndarray:
    """The array of an .npy file.

    Args:
      path: the file.
      name: of the flag, for messages.
      check: what it may be.

    Raises:
      UserError: no plain file, no .npy, a broken one, or what `check` raises.
    """
    with _opened(path, name, "an .npy") as file:
        if file.read(4).startswith(b"PK"):
            raise ValueError("an .npz")
        size = file.seek(0, 2)
        file.seek(0)
        return _array(file, size, check)


def read_many(path: paths.PathLike, name: str, checks: dict[str, Check]) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name: those of `checks` that it has.

    Raises:
      UserError: as `read`.
    """
    with _opened(path, name, f"an .npz of {' and '.join(checks)}") as file, zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        found = {}
        for key, check in checks.items():
            if key in members:
                with archive.open(members[key]) as member:
                    found[key] = _array(member, members[key].file_size, check)
        return found


def headers(path: paths.PathLike, name: str, wanted: str) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """The dtype and the shape of every array of an .npz file; `wanted` is what it should be, for messages.

    Raises:
      UserError: as `read`.
    """
    with _opened(path, name, wanted) as file, zipfile.ZipFile(file) as archive:
        found = {}
        for info in archive.infolist():
            with archive.open(info) as member:
                found[info.filename.removesuffix(".npy")] = _header(member, info.file_size)[:2]
        return found


def rows(path: paths.PathLike, name: str, key: str, size: int) -> Iterator[np.ndarray]:
    """An array of an .npz file along its first axis, `size` of it in memory at once.

    Raises:
      UserError: as `read`; also an array whose rows don't lie one after the other.
    """
    with _opened(path, name, f"an .npz of {key}") as file, zipfile.ZipFile(file) as archive:
        info = archive.getinfo(f"{key}.npy")
        with archive.open(info) as member:
            dtype, shape, fortran = _header(member, info.file_size)
            if fortran and len(shape) > 1:
                raise ValueError(f"{key} in Fortran's order")
            for start in range(0, shape[0], size):
                part = min(size, shape[0] - start), *shape[1:]
                yield np.frombuffer(member.read(math.prod(part) * dtype.itemsize), dtype).reshape(part)


@contextlib.contextmanager
def _opened(path: paths.PathLike, name: str, wanted: str) -> Iterator[BinaryIO]:
    where = paths.path(path, name)
    if not paths.is_file(where):
        found = "a directory" if where.is_dir() else "no plain file" if where.exists() else "none"
        raise UserError(f"{name} {path}: expected {wanted}, found {found}")
    try:
        with where.open("rb") as file:
            yield file
    except UserError as error:
        raise UserError(f"{name} {path}: {error}") from error
    # RuntimeError: an encrypted archive; NotImplementedError: an unknown compression.
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{name} {path}: expected {wanted}, found {lines[0][:200]}") from error


def _array(file: Any, size: int, check: Check) -> np.ndarray:
    """An array of `size` bytes with its header."""
    dtype, shape, fortran = _header(file, size, check)
    flat = np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _header(
    file: Any, size: int, check: Check = lambda dtype, shape: None
) -> tuple[np.dtype, tuple[int, ...], bool]:
    """The dtype, the shape and whether columns come first, of an array of `size` bytes with its header."""
    version = np.lib.format.read_magic(file)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise ValueError(f"format {version[0]}.{version[1]}")
    shape, fortran, dtype = headers[version](file)
    if dtype.hasobject or any(n < 0 for n in shape):
        raise ValueError(f"{dtype} of shape {list(shape)}")
    check(dtype, shape)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != (left := size - file.tell()):
        raise ValueError(f"{left} bytes where its header says {claimed}")
    return dtype, shape, fortran
