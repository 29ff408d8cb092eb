"""JPEG-LM's vocabulary (uwnlp/jpeg-lm-reimplementation, tokenizer.model): pieces of a file's bytes, each written as the
Braille character of its number, so that SentencePiece can cut them.

A picture is Pillow's file at quality 25 with 4:2:0, a restart marker after each MCU and no tables (its streamtype 2),
between <s> and </s>. It is cut as the vocabulary itself says; what a library does around it is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import sentencepiece, shapes
from vargen.tokenizers.jpeg import Jpeg
from vargen.tokenizers.pieces import BEGIN

WHAT = "JPEG-LM tokenizer"
IGNORED = ()
WRAPPED = ()
SPECIAL = ("<unk>", "<s>", "</s>")
START, STOP = 1, 2  # numbers of two of them
SPACE, FIRST = "\u2581", 0x2800  # SentencePiece's character for a space, and that for the byte 0
CONTEXT = 12288  # of the generator


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Raises:
      UserError: arrays of another file, or other pieces than of bytes.
    """
    for name in sentencepiece.NAMES:
        shapes.shape(arrays, name, WHAT)
    names = [sentencepiece.text(points) for points in arrays["pieces"]]
    kinds, scores = arrays["kinds"].astype(int).tolist(), arrays["scores"].tolist()
    known = [sentencepiece.UNKNOWN, sentencepiece.CONTROL, sentencepiece.CONTROL]
    if tuple(names[:3]) != SPECIAL or kinds[:3] != known:
        raise UserError(f"{WHAT}: expected {', '.join(SPECIAL)} first, found {', '.join(names[:3])}")
    begins = bool(arrays["begins"][0])
    texts = [""] * 3 + [_text(name, kind, begins) for name, kind in zip(names[3:], kinds[3:], strict=True)]
    joined = [score for name, text, score in zip(names, texts, scores, strict=True) if text and len(name) > 1]
    if any(a <= b for a, b in zip(joined, joined[1:])):
        raise UserError(f"{WHAT}: expected pieces from the best on, found another order")
    if begins and BEGIN not in texts:
        texts[0] = BEGIN  # what isn't known is <unk>
    return config_part(
        "jpeg",
        restart=1,
        length=16384,
        slots=CONTEXT - 1,
        pieces=tuple(texts),
        stop=STOP,
        header=True,
    )


def _text(name: str, kind: int, begins: bool) -> str:
    """A piece as ours (`pieces.Pieces`)."""
    if kind == sentencepiece.CONTROL:
        return ""
    numbers = [ord(x) - FIRST for x in name.removeprefix(SPACE)]
    if kind != sentencepiece.NORMAL or any(not 0 <= number < 256 for number in numbers):
        raise UserError(f"{WHAT}: expected pieces of bytes as Braille characters, found {name!r}")
    if name.startswith(SPACE) and not begins:
        return ""  # which no text has
    return BEGIN * name.startswith(SPACE) + bytes(numbers).hex()


def table(tokenizer: Jpeg) -> list[m.Entry]:
    """All entries: the pieces are in the config, and no parameters.

    Raises:
      UserError: codes that are learnt of pictures.
    """
    given = tokenizer.pieces
    if given is None or not tokenizer.header:
        raise UserError(f"{WHAT}: expected given pieces of whole files, found codes that are learnt of scans")
    entries = m.constant("quantizer/merges", lambda: np.zeros((0, 2), np.int32))
    return [
        *entries,
        m.Entry((), sentencepiece.NAMES, lambda *_: (), lambda: _arrays(given.texts), optional=True),
    ]


def _arrays(texts: tuple[str, ...]) -> m.Arrays:
    """The file's arrays, as of `sentencepiece.NAMES`."""
    names, kinds = list(SPECIAL), [sentencepiece.UNKNOWN] + 2 * [sentencepiece.CONTROL]
    for number, text in enumerate(texts[3:], 3):
        characters = "".join(chr(FIRST + byte) for byte in bytes.fromhex(text.removeprefix(BEGIN)))
        names.append(SPACE * text.startswith(BEGIN) + characters if text else f"<unused{number}>")
        kinds.append(sentencepiece.NORMAL if text else sentencepiece.CONTROL)
    scores = [0.0 if kind != sentencepiece.NORMAL else -float(number) for number, kind in enumerate(kinds)]
    width = max(map(len, names))
    points = [[ord(x) for x in name.ljust(width, "\0")] for name in names]
    begins = [float(any(text.startswith(BEGIN) for text in texts))]
    return [np.array(x, np.float32) for x in (points, scores, kinds, begins)]
