"""SentencePiece's files (tokenizer.model) of byte-pair vocabularies: protocol buffers, of which little is needed."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vargen.errors import UserError
from vargen.interop.lazy import Array, Found, unreadable

SUFFIX, FIRST = ".model", b"\n"  # the key of a piece
NORMAL, UNKNOWN, CONTROL = 1, 2, 3  # kinds of pieces
NAMES = ("pieces", "scores", "kinds", "begins")  # of the arrays
_BPE = 2


def read(path: pathlib.Path) -> Found:
    """The vocabulary of K pieces as arrays, all float32.

    pieces [K, longest]: code points, zeros behind the last; scores, kinds [K]; begins [1]: whether a space is put
    before a text.

    Raises:
      UserError: another file, a damaged one, a vocabulary of another kind than byte pairs, or one that changes text
        before it is cut into pieces.
    """
    try:
        pieces, trainer, normaliser = [], {}, {}
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                pieces.append(dict(_fields(value)))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normaliser = dict(_fields(value))
        texts = [piece[1].decode() for piece in pieces]
        scores = [struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0] for piece in pieces]
        kinds = [int(piece.get(3, NORMAL)) for piece in pieces]
        if not texts or not all(texts):
            raise ValueError("no pieces, or empty ones")
    except (OSError, ValueError, LookupError, AttributeError, TypeError, struct.error) as error:
        raise unreadable(path, "SentencePiece", error) from error
    for wrong, found in (
        (trainer.get(3, 1) != _BPE, "one of another kind"),
        (trainer.get(35, 0), "one that falls back to bytes"),
        (normaliser.get(2), "one that normalises"),
    ):
        if wrong:
            raise UserError(
                f"{path}: expected a vocabulary of byte pairs over plain characters, found {found}"
            )
    width = max(map(len, texts))
    points = [[ord(x) for x in text.ljust(width, "\0")] for text in texts]
    values = dict(pieces=points, scores=scores, kinds=kinds, begins=[normaliser.get(3, 1)])
    arrays = {name: np.array(x, np.float32) for name, x in values.items()}
    return {name: Array(x.shape, lambda x=x: x) for name, x in arrays.items()}  # type: ignore[misc]


def text(points: np.ndarray) -> str:
    """The text of one row of `pieces`."""
    return "".join(chr(int(point)) for point in points if point)


def write(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays such as `read` gives, which are all that there may be.

    Raises:
      UserError: others.
    """
    if set(arrays) != set(NAMES):
        raise UserError(f"{path}: expected a vocabulary for a {SUFFIX} file, found {', '.join(arrays)}")
    content = b""
    for points, score, kind in zip(arrays["pieces"], arrays["scores"], arrays["kinds"], strict=True):
        piece = (
            _block(1, text(points).encode())
            + b"\x15"
            + struct.pack("<f", score)
            + b"\x18"
            + bytes([int(kind)])
        )
        content += _block(1, piece)
    trainer = b"\x18" + bytes([_BPE]) + b"\x20" + _varint(len(arrays["pieces"]))
    normaliser = _block(1, b"identity") + b"\x18" + bytes([int(arrays["begins"][0])]) + b"\x20\0"
    path.write_bytes(content + _block(2, trainer) + _block(3, normaliser))


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The numbers and values of a message: whole numbers, or bytes."""
    at = 0
    while at < len(data):
        key, at = _whole(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _whole(data, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, at = _whole(data, at)
        if size is None or at + size > len(data):
            raise ValueError("no message")
        yield key >> 3, data[at : at + size]
        at += size


def _whole(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def _block(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content
