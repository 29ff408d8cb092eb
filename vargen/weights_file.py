"""Our own parameters in one safetensors file, and writing files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes  # makes "bfloat16" a NumPy dtype, by which safetensors hands out such tensors
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vargen.errors import UserError

Path = str | os.PathLike[str]
HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def write(path: Path, params: Any) -> None:
    """Writes parameters, a nested dict of arrays, as one safetensors file with "/" between the keys.

    Raises:
      UserError: a leaf is not an array of numbers, or the file cannot be written.
    """
    path = pathlib.Path(path).expanduser()
    with replacing(path) as temporary:
        write_safetensors(temporary, dict(flatten(params)), format="vargen")


def read(path: Path) -> dict:
    """Parameters from a file of `write`: nested dict of NumPy arrays, shapes and dtypes as written.

    Raises:
      UserError: no such file, a damaged one, or one that `write` did not write.
    """
    try:
        file = safe_open(path, framework="np")
        found = (file.metadata() or {}).get("format", "none")
        if found == "vargen":
            return unflatten({name: file.get_tensor(name) for name in file.keys()})
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: expected parameters written by vargen, found a broken file ({line(error)})"
        ) from error
    raise UserError(f"{path}: expected parameters written by vargen, found safetensors of format {found!r}")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """("a/b/c", leaf) for every leaf of a nested dict."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def unflatten(flat: Mapping[str, Any]) -> dict:
    """The inverse of `flatten`."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, last = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return tree


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new file beside `path` that takes its place where the block ends well, and is gone where not."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors would keep others from reading it
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError is PyTorch's
        reason = getattr(error, "strerror", None) or line(error)  # without the temporary name
        raise UserError(f"{path}: cannot be written: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


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
