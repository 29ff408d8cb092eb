"""TensorFlow's frozen graphs (.pb): their constants, read from the bytes without TensorFlow.

A GraphDef is a message of protocol buffers; the few fields that hold constants are followed, all else is passed over.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from vargen.interop.lazy import Array, Found, unreadable

SUFFIX = ".pb"
# Numbers of fields, from tensorflow/core/framework/{graph,node_def,attr_value,tensor,tensor_shape}.proto.
NODE = 1
NAME, OP, ATTRIBUTE = 1, 2, 5
KEY, VALUE = 1, 2
TENSOR = 8
DTYPE, SHAPE, CONTENT, FLOATS = 1, 2, 4, 5
DIMENSION, SIZE = 2, 1
FLOAT = 1  # DT_FLOAT
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # kinds of fields


def read(path: pathlib.Path) -> Found:
    """The float32 constants of a graph by the names of their nodes; other constants are passed over.

    Raises:
      UserError: a damaged file, or one of another kind.
    """
    data = memoryview(path.read_bytes())
    try:
        found = dict(_constants(data))
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise unreadable(path, "TensorFlow graph", error) from error
    if not found:
        raise unreadable(path, "TensorFlow graph with constants")
    return found


def _constants(data: memoryview) -> Iterator[tuple[str, Array]]:
    for number, node in _fields(data):
        if number != NODE or isinstance(node, int):
            continue
        name, op, tensor = "", "", None
        for field, value in _fields(node):
            if isinstance(value, int):
                continue
            if field == NAME:
                name = str(value, "utf-8")
            elif field == OP:
                op = str(value, "utf-8")
            elif field == ATTRIBUTE:
                pair = dict(_fields(value))
                if bytes(pair.get(KEY, b"")) == b"value":
                    tensor = dict(_fields(pair.get(VALUE, b""))).get(TENSOR)
        if op == "Const" and tensor is not None and (array := _array(tensor)) is not None:
            yield name, array


def _array(tensor: memoryview) -> Array | None:
    """A TensorProto; None where it holds no float32."""
    fields = dict(_fields(tensor))
    if fields.get(DTYPE) != FLOAT:
        return None
    sizes = [dict(_fields(d)).get(SIZE, 0) for n, d in _fields(fields.get(SHAPE, b"")) if n == DIMENSION]
    shape, content = tuple(sizes), fields.get(CONTENT) or b""
    if not content:  # float_val: packed into one field, or a field for each number
        content = b"".join(bytes(v) for n, v in _fields(tensor) if n == FLOATS)
    values = np.frombuffer(content, "<f4")
    if len(values) not in (1, math.prod(shape)):
        raise ValueError(f"{len(values)} numbers for the shape {shape}")
    # One number stands for all.
    return Array(shape, lambda: np.broadcast_to(values, math.prod(shape)).reshape(shape))


def _fields(data: memoryview | bytes) -> Iterator[tuple[int, Any]]:
    """Numbers of fields and what they hold: whole numbers, or bytes as a memoryview."""
    data, place = memoryview(data), 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == VARINT:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        if kind == LENGTH:
            length, place = _varint(data, place)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if place + length > len(data):
            raise ValueError(f"{place + length - len(data)} bytes are missing")
        yield tag >> 3, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A whole number in bytes of seven bits, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number of more than ten bytes")
