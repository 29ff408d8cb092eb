"""Our own parameters in one safetensors file, with a checksum."""

from __future__ import annotations

import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes  # makes "bfloat16" a NumPy dtype, by which safetensors hands out such tensors
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vargen import paths
from vargen.errors import UserError

Path = str | os.PathLike[str]
FORMAT = "vargen"
HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def write(path: Path, params: Any) -> None:
    """Writes parameters, a nested dict of arrays, as one safetensors file with "/" between the keys, and a checksum.

    Raises:
      UserError: a leaf is not an array of numbers.
      OSError: the file cannot be written.
    """
    arrays = {name: numbers(name, array) for name, array in flatten(params)}
    with paths.replacing(path) as temporary:
        without = " ".join(empty(params))
        told = dict(format=FORMAT, checksum=checksum(arrays, without)) | (
            {"empty": without} if without else {}
        )
        save_file(arrays, temporary, metadata=told)


def read(path: Path) -> dict:
    """Parameters from a file of `write`: nested dict of NumPy arrays, shapes and dtypes as written.

    Raises:
      UserError: a damaged file, or one that `write` did not write.
    """
    try:
        file = safe_open(paths.local(path), framework="np")
        metadata = file.metadata() or {}
        if metadata.get("format") == FORMAT:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            without = metadata.get("empty", "")
            if checksum(arrays, without) == metadata.get("checksum"):
                return unflatten(arrays, without.split())
            raise UserError(
                f"{path}: expected parameters as vargen wrote them, found others (the checksum differs); "
                "import or copy them again"
            )
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: expected parameters written by vargen, found a broken file ({line(error)})"
        ) from error
    found = metadata.get("format", "none")
    raise UserError(f"{path}: expected parameters written by vargen, found safetensors of format {found!r}")


def checksum(arrays: Mapping[str, np.ndarray], without: str = "") -> str:
    """CRC-32 of the dicts `without` anything, and all names, dtypes, shapes and bytes, in the order of names."""
    crc = zlib.crc32(without.encode())
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"", crc)
    return f"{crc:08x}"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """("a/b/c", leaf) for every leaf of a nested dict."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def empty(tree: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """ "a/b/c" for every dict without anything in a nested dict: of parts without parameters."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from empty(value, f"{prefix}{key}/") if value else [f"{prefix}{key}"]


def unflatten(flat: Mapping[str, Any], without: Iterable[str] = ()) -> dict:
    """The inverse of `flatten`, with the dicts `without` anything, see `empty`."""
    tree: dict = {}
    for path, value in [*flat.items(), *((path, {}) for path in without)]:
        *parents, last = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return tree


def numbers(name: str, array: Any) -> np.ndarray:
    """An array of numbers in C order and the machine's byte order, which all the writers take for granted."""
    array = np.asarray(array, order="C")
    if array.dtype.kind not in "biufc" and array.dtype not in HALVES:
        raise UserError(f"{name}: expected an array of numbers to write, found dtype {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def write_safetensors(path: pathlib.Path, arrays: Mapping[str, Any], format: str = "pt") -> None:
    """Writes arrays by name, with the `format` in the file's metadata."""
    # "pt" is what readers on PyTorch's side ask for.
    save_file({k: numbers(k, v) for k, v in arrays.items()}, path, metadata={"format": format})


def line(error: BaseException) -> str:
    """The first line of an error's text."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
