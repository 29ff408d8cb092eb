"""What `vargen sample --captions` names: captions as they are written, as numbers, or as a text encoder's states."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vargen.errors import UserError

if TYPE_CHECKING:
    from vargen.conditioning import CaptionEmbedding, Captions, Conditioning

MOST_NUMBERS = 2**32  # in one array of captions


def read_texts(text: str, condition: Conditioning) -> tuple[Any, list[str]]:
    """Captions as a model of words takes them, and as they were written: one, the lines of a file.txt, or numbers of a
    file.npy.

    Raises:
      UserError: no such file, no captions in it, words or numbers that the model doesn't know.
    """
    from vargen import paths

    if text.endswith(".npy"):
        return read_numbers(text, condition)
    texts = [text]
    if text.endswith(".txt"):
        file = paths.path(text, "--captions")
        if not paths.is_file(file):
            raise UserError(f"--captions {file}: expected a file of one caption a line, found none")
        try:
            texts = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise UserError(f"--captions {file}: expected text in UTF-8, found {error}") from error
        if not texts:
            raise UserError(f"--captions {file}: expected captions, found none")
    return condition.parse(texts), texts


def read_numbers(path: str, condition: Conditioning) -> tuple[Any, list[str]]:
    """Captions that come as whole numbers [B, T], and names for them; errors as of `read_texts`."""
    from vargen.cli import array_files

    def whole(dtype, shape) -> None:
        if dtype.kind not in "iu" or len(shape) != 2 or math.prod(shape) > MOST_NUMBERS:
            raise UserError(f"expected whole numbers [B, T], found {dtype} of shape {list(shape)}")

    found = array_files.read(path, "--captions", whole)
    try:
        return condition.parse(found), [str(i) for i in range(len(found))]
    except UserError as error:
        raise UserError(f"--captions {path}: {error}") from error


def read_captions(path: str, condition: CaptionEmbedding) -> tuple[Captions, list[str]]:
    """Captions as a model of text takes them, and names for them.

    Raises:
      UserError: not an .npz with `embedding` and `mask`, or of another shape than the model's.
    """
    from vargen.cli import array_files

    def numbers(dtype, shape) -> None:
        if dtype.kind not in "biuf" or math.prod(shape) > MOST_NUMBERS:
            raise UserError(
                f"expected numbers, at most {MOST_NUMBERS} of them, found {dtype} of shape {list(shape)}"
            )

    def text(dtype, shape) -> None:
        if dtype.kind != "U" or len(shape) > 1:
            raise UserError(f"expected a list of texts, found {dtype} of shape {list(shape)}")

    found = array_files.read_many(path, "--captions", dict(embedding=numbers, mask=numbers, text=text))
    for name in ("embedding", "mask"):
        if name not in found:
            raise UserError(f"--captions {path}: expected an .npz of embedding and mask, found no {name}")
    try:
        captions = condition.parse((found["embedding"], found["mask"]))
    except ValueError as error:
        raise UserError(f"--captions {path}: {error}") from error
    count = len(found["embedding"])
    names = [str(x) for x in found["text"].reshape(-1)] if "text" in found else [str(i) for i in range(count)]
    if len(names) != count:
        raise UserError(
            f"--captions {path}: expected a text for each of {count} embeddings, found {len(names)}"
        )
    return captions, names
