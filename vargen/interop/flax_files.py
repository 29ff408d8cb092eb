"""Flax's own files: nested dicts of arrays in msgpack, as `flax.serialization.to_bytes` writes them."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from vargen import weights_file
from vargen.errors import UserError
from vargen.interop.lazy import FAILURES, Array, Found, unreadable

SUFFIX = ".msgpack"
VARIABLES = "params"  # what Flax calls the parameters among a module's variables


def begins(first: bytes) -> bool:
    """Whether the first bytes of a file are those of a dict with names: a map whose first key is text."""
    # The map's kind and size take one byte up to 15 entries, three or five for more; so is text up to 31 bytes.
    size = {0xDE: 3, 0xDF: 5}.get(first[0], 1 if 0x81 <= first[0] <= 0x8F else 0) if first else 0
    return 0 < size < len(first) and (0xA1 <= first[size] <= 0xBF or 0xD9 <= first[size] <= 0xDB)


def read(path: pathlib.Path) -> Found:
    """The arrays of a file by name, "/" between the keys, without a "params" around all of them. All are in memory.

    Raises:
      UserError: another file, or a damaged one.
    """
    from flax import serialization

    try:
        content = serialization.msgpack_restore(path.read_bytes())
    except (*FAILURES, ArithmeticError, LookupError, RecursionError) as error:
        raise unreadable(path, "Flax", error) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected a dict of arrays, found {type(content).__name__}")
    if isinstance(content.get(VARIABLES), Mapping):
        content = content[VARIABLES]
    return {name: Array(x.shape, lambda x=x: x) for name, x in _leaves(content)}  # type: ignore[misc]


def _leaves(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{key}/")
        elif isinstance(value, np.ndarray):
            yield f"{before}{key}", value


def write(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays as a module's variables: "a/kernel" as {"params": {"a": {"kernel": ...}}}."""
    from flax import serialization

    plain = {name: weights_file.numbers(name, value) for name, value in arrays.items()}
    plain = {k: v.astype(np.float32) if v.dtype == ml_dtypes.bfloat16 else v for k, v in plain.items()}
    path.write_bytes(serialization.msgpack_serialize({VARIABLES: weights_file.unflatten(plain)}))
