"""Arrays of a file by name, each read when it is asked for."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from safetensors import SafetensorError

from vargen import weights_file
from vargen.errors import UserError

Path = str | os.PathLike[str]
Found = dict[str, "Array"]

# What the readers of the formats raise on bytes or dtypes that they do not know.
FAILURES = (
    *(OSError, ValueError, TypeError, AttributeError, EOFError, RuntimeError),
    *(SafetensorError, zipfile.BadZipFile, zlib.error),
)


@dataclasses.dataclass(frozen=True)
class Array:
    """One of them: its shape, and how to read it."""

    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]


def _odd(array: np.ndarray) -> str:
    """The first number that isn't finite, and how many there are."""
    odd = array[~np.isfinite(array)]
    return f"{odd[0]} (one of {odd.size})"


class Weights(Mapping[str, np.ndarray]):
    """Arrays by name, each read and converted anew whenever it is asked for.

    float16 and bfloat16 come out as float32, every other dtype as it is. `len`, iteration and `in` read nothing.
    """

    def __init__(self, path: Path, arrays: Found):
        self._path, self._arrays = path, arrays

    def __getitem__(self, name: str) -> np.ndarray:
        found = self._arrays[name]
        try:
            array = found.load()
        except FAILURES as error:
            raise UserError(f"{self._path}: {name} cannot be read: {weights_file.line(error)}") from error
        if array.dtype in weights_file.HALVES:
            return array.astype(np.float32)
        if array.dtype.kind not in "biufc":
            raise UserError(f"{self._path}: {name}: expected an array of numbers, found dtype {array.dtype}")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, without reading it."""
        return self._arrays[name].shape

    def within(self, prefix: str, others: Weights) -> Weights:
        """With the arrays of another file in the place of those whose names begin with a prefix."""
        own = {name: x for name, x in self._arrays.items() if not name.startswith(prefix)}
        return Weights(self._path, own | {prefix + name: x for name, x in others._arrays.items()})

    def parameters(self) -> Parameters:
        """The same arrays as a model's parameters.

        Raises:
          UserError: an empty array.
        """
        for name, array in self._arrays.items():
            if 0 in array.shape:
                raise UserError(
                    f"{self._path}: {name}: expected numbers, found an empty array of shape {array.shape}"
                )
        return Parameters(self._path, self._arrays)


class Parameters(Weights):
    """Weights that a model can have: whole numbers, and floats that aren't finite, are refused when asked for."""

    def __getitem__(self, name: str) -> np.ndarray:
        array = super().__getitem__(name)
        if array.dtype.kind != "f":
            raise UserError(f"{self._path}: {name}: expected an array of floats, found dtype {array.dtype}")
        if not np.isfinite(array).all():
            raise UserError(f"{self._path}: {name}: expected finite numbers, found {_odd(array)}")
        return array


def head(path: pathlib.Path) -> bytes:
    """The first bytes of a file, which tell its format."""
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def unreadable(path: pathlib.Path, kind: str, error: Exception | None = None) -> UserError:
    """The error to raise of a file that is no whole one of its kind."""
    first = head(path)
    if not first:
        found = "an empty file"
    elif all(32 <= byte < 127 or byte in b"\t\r\n" for byte in first):  # a web page, a pointer of Git LFS
        found = f"text that starts {first.decode().splitlines()[0][:48]!r}"
    else:
        found = f"a truncated or damaged one ({weights_file.line(error)})" if error else "something else"
    return UserError(f"{path}: expected a {kind} file, found {found}")
