"""A vocabulary of byte strings that is given rather than learnt, as BPE of SentencePiece has one (arXiv 1808.06226).

The best adjacent pair is joined first, whichever two pieces its bytes are divided into: of `byte_pairs.merge`, where a
merge is of two certain codes, that is another result where a piece has two divisions.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.tokenizers import byte_pairs

BEGIN = "_"  # before the first byte of a text: the space that SentencePiece puts there
MOST = 4096  # pieces


class Piece:
    """A limit (`vargen.limits`): bytes in hexadecimal, perhaps behind `BEGIN`."""

    def holds(self, value: str) -> bool:
        """Whether it is that."""
        return re.fullmatch(rf"{BEGIN}?([0-9a-f]{{2}})*", value) is not None

    def __str__(self) -> str:
        return "bytes in hexadecimal"


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Numbers of byte strings, and byte strings of numbers.

    Attributes:
      texts: of each number, in hexadecimal; '' where it stands for no bytes. Of several bytes, smaller numbers are
        joined first. Where any has `BEGIN` in it, that stands before the first byte of every text.
      stop: the number after the last.

    Raises:
      UserError: too many, a byte without a piece, a text twice, a stop that stands for bytes.
    """

    texts: tuple[str, ...]
    stop: int

    def __post_init__(self) -> None:
        count = collections.Counter(text for text in self.texts if text)
        bytes_of = {f"{byte:02x}" for byte in range(256)}
        if len(self.texts) > MOST:
            raise UserError(
                f"config field tokenizer.pieces: expected at most {MOST}, found {len(self.texts)}"
            )
        if missing := sorted(bytes_of - set(count)):
            raise UserError(f"config field tokenizer.pieces: expected every byte, found no {missing[0]}")
        if twice := [text for text, n in count.items() if n > 1]:
            raise UserError(f"config field tokenizer.pieces: expected each once, found {twice[0]} twice")
        if not (0 <= self.stop < len(self.texts) and not self.texts[self.stop]):
            raise UserError(
                "config field tokenizer.stop: expected the number of a piece without bytes, found "
                f"{self.stop}"
            )
        if self.begins and BEGIN not in count:
            raise UserError(
                f"config field tokenizer.pieces: expected {BEGIN} alone, too, found it with bytes"
            )

    @property
    def begins(self) -> bool:
        """Whether texts begin with `BEGIN`."""
        return any(text.startswith(BEGIN) for text in self.texts)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {text: number for number, text in enumerate(self.texts) if text}

    @functools.cached_property
    def _made(self) -> np.ndarray:
        """int32 [K, K]: what two join to; K where to nothing."""
        made = np.full((len(self.texts),) * 2, len(self.texts), np.int32)
        for text, number in self._numbers.items():
            for at in range(1, len(text)):
                parts = [self._numbers.get(part) for part in (text[:at], text[at:])]
                if None not in parts:
                    made[tuple(parts)] = number
        return made

    @functools.cached_property
    def _bytes(self) -> tuple[np.ndarray, np.ndarray]:
        """int32 [K, longest], zeros behind the last; int32 [K], how many there are."""
        strings = [bytes.fromhex(text.removeprefix(BEGIN)) for text in self.texts]
        sizes = np.array([len(x) for x in strings], np.int32)
        padded = b"".join(x.ljust(sizes.max(), b"\0") for x in strings)
        return np.frombuffer(padded, np.uint8).reshape(len(strings), -1).astype(np.int32), sizes

    def encode(self, text: jax.Array, end: int) -> jax.Array:
        """Bytes int32 [B, L], then `end` (256) over and over -> numbers [B, L], or [B, L + 1] where texts begin."""
        first = np.array([*(self._numbers[f"{byte:02x}"] for byte in range(256)), self.stop], np.int32)
        codes = jnp.asarray(first)[jnp.minimum(text, end)]
        if self.begins:
            codes = jnp.pad(codes, ((0, 0), (1, 0)), constant_values=self._numbers[BEGIN])
        return byte_pairs.join(codes, jnp.asarray(self._made), self.stop)

    def decode(self, numbers: jax.Array, end: int, length: int) -> jax.Array:
        """Numbers [B, N] -> bytes [B, length] of those before the first stop, then `end`; what doesn't fit is cut."""
        table, sizes = map(jnp.asarray, self._bytes)
        over = jnp.cumsum(numbers == self.stop, axis=1) > 0
        size = jnp.where(over, 0, sizes[numbers])
        start = jnp.cumsum(size, axis=1) - size
        out = jnp.full((len(numbers), length), end, jnp.int32)
        for place in range(table.shape[1]):
            at = jnp.where(place < size, start + place, length)
            out = out.at[jnp.arange(len(numbers))[:, None], at].set(table[numbers, place], mode="drop")
        return out
