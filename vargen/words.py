"""Texts as numbers, a word each, over a small vocabulary."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from vargen.errors import UserError
from vargen.limits import Between, problem_with, suggestion

PAD, END = 0, 1
FIRST = 2  # the number of the first word
LENGTH = Between(2, 2**16)


def split(text: str) -> list[str]:
    """The words of a text, in small letters; a mark of punctuation is a word."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def join(words: Iterable[str]) -> str:
    """The text of words; marks stand right behind the word before them."""
    return re.sub(r" (?=[^\w\s])", "", " ".join(words))


class Word:
    """A limit (`vargen.limits`): one word, as `split` finds it."""

    def holds(self, value: str) -> bool:
        """Whether it is one."""
        return split(value) == [value]

    def __str__(self) -> str:
        return "words in small letters"


@dataclasses.dataclass(frozen=True)
class Words:
    """Numbers of words, and words of numbers.

    Attributes:
      vocabulary: the words, each once. The first has the number `FIRST`; `PAD` and `END` come before.
      length: T, the numbers of a text: its words, `END`, and `PAD` up to T.

    Raises:
      UserError: no words, a word twice, what is no word in small letters; a length below 2.
    """

    vocabulary: tuple[str, ...]
    length: int

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for word in self.vocabulary:
            if not isinstance(word, str) or not Word().holds(word) or word in seen:
                found = f"{word!r} twice" if word in seen else f"{word!r:.80}"
                raise UserError(
                    f"conditioning.vocabulary: expected words in small letters, each once, found {found}"
                )
            seen.add(word)
        if not seen:
            raise UserError("conditioning.vocabulary: expected words, found none")
        if problem := problem_with(self.length, int, LENGTH):
            raise UserError(f"length of a text: {problem}")

    @classmethod
    def of(cls, texts: Iterable[str], length: int = 0) -> Words:
        """The words of texts in alphabetical order; a length of 0 is that of the longest text."""
        every = [split(text) for text in texts]
        longest = max(map(len, every), default=0) + 1
        return cls(tuple(sorted({word for words in every for word in words})), length or longest)

    @property
    def size(self) -> int:
        """How many numbers there are, `PAD` and `END` among them."""
        return FIRST + len(self.vocabulary)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """int32 [B, T] of B texts.

        Raises:
          UserError: other than texts; a word outside the vocabulary, with the nearest one; more than T - 1 words.
        """
        number = {word: i for i, word in enumerate(self.vocabulary, FIRST)}
        found = np.full((len(texts), self.length), PAD, np.int32)
        for row, text in zip(found, texts):
            if not isinstance(text, str):
                raise UserError(f"captions: expected texts, found {text!r:.80} among them")
            words = split(text)
            for word in words:
                if word not in number:
                    near = suggestion(word, self.vocabulary) or f", expected among {', '.join(number)}"
                    raise UserError(f"caption {text!r:.200}: unknown word {word!r}{near:.200}")
            if len(words) >= self.length:
                most = self.length - 1
                raise UserError(f"caption {text!r:.200}: expected at most {most} words, found {len(words)}")
            row[: len(words) + 1] = [*(number[word] for word in words), END]
        return found

    def decode(self, numbers: ArrayLike) -> list[str]:
        """B texts of int [B, T]: the words before the first `END` or `PAD`.

        Raises:
          UserError: other than whole numbers [B, T] from 0 to `size` - 1.
        """
        found = np.asarray(numbers)
        wanted = f"whole numbers [B, T] from 0 to {self.size - 1}"
        if found.dtype.kind not in "iu" or found.ndim != 2:
            raise UserError(f"words: expected {wanted}, found {found.dtype} of shape {list(found.shape)}")
        outside = found[(found < 0) | (found >= self.size)]
        if outside.size:
            raise UserError(f"words: expected {wanted}, found {outside[0]}")
        lengths = np.argmax(np.pad(found < FIRST, ((0, 0), (0, 1)), constant_values=True), axis=1)
        return [
            join(self.vocabulary[i - FIRST] for i in row[:length])
            for row, length in zip(found, lengths, strict=True)
        ]
