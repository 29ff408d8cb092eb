"""Text in pictures: how an OCR program reads it, and how far what it reads of a reconstruction is from the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vargen.errors import UserError


class Errors:
    """Character and word error rates over a set: edits by the length of what is read of the originals.

    VTBench's code (evaluations/word_error_rate.py) counts edits of characters by words for the latter; here both are
    of words, as the rate is defined.
    """

    def __init__(self) -> None:
        self._edits, self._lengths = np.zeros(2), np.zeros(2)

    def add(self, original: str, reconstruction: str) -> None:
        """Takes in what is read of a picture before and after."""
        pairs = ((original, reconstruction), (original.split(), reconstruction.split()))
        self._edits += [distance(a, b) for a, b in pairs]
        self._lengths += [len(a) for a, _ in pairs]

    def rates(self) -> dict[str, float]:
        """`cer` and `wer`; without any text in the originals 0, or what was read by error instead."""
        cer, wer = self._edits / np.maximum(self._lengths, 1)
        return dict(cer=float(cer), wer=float(wer))


def distance(a: Sequence, b: Sequence) -> int:
    """Levenshtein's distance: the fewest insertions, deletions and replacements that make one the other."""
    known = {x: i for i, x in enumerate(dict.fromkeys([*a, *b]))}
    columns = np.array([known[x] for x in b], np.int64)
    places = np.arange(len(b) + 1)
    row = places.copy()
    for i, x in enumerate(a):
        kept = np.minimum(row[1:] + 1, row[:-1] + (columns != known[x]))
        row = np.concatenate([[i + 1], kept])
        row = np.minimum.accumulate(row - places) + places  # insertions
    return int(row[-1])


def reader() -> Callable[[np.ndarray, str], str]:
    """What reads text: (image uint8 [H, W, C], Tesseract's language) -> text.

    Raises:
      UserError: the package pytesseract or Tesseract itself isn't installed; when it reads, a language that isn't.
    """
    from PIL import Image

    try:
        import pytesseract
    except ImportError as error:
        raise UserError(
            "text: expected the package pytesseract, found none: pip install vargen[ocr]"
        ) from error
    try:
        pytesseract.get_tesseract_version()
    except pytesseract.TesseractNotFoundError as error:
        raise UserError(
            "text: expected the program tesseract, found none; it is a package of your system"
        ) from error

    def read(image: np.ndarray, language: str) -> str:
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        try:
            return pytesseract.image_to_string(picture, lang=language)
        except pytesseract.TesseractError as error:
            raise UserError(
                f"text: expected tesseract's language {language}, found: {error!s:.120}"
            ) from error

    return read
