"""Captions as a segment of the sequence: words that are given, or that the generator writes (arXiv 2412.00127)."""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vargen.conditioning.condition import Condition
from vargen.conditioning.words import WordEmbedding
from vargen.errors import UserError
from vargen.layers import logical
from vargen.limits import Between
from vargen.segments import Segment
from vargen.slots import Grid, Slot
from vargen.words import END, PAD, Word

NAME = "text"


class Text(WordEmbedding):
    """A learned row that begins the sequence; captions are slots of it, one number each.

    Between the numbers of a caption, int32 [B, T], stand one that ends a picture, before them, and one that begins a
    picture, behind them: the row that carries it predicts the picture's first slot. Without a caption they are those of
    an empty one.

    Attributes:
      vocabulary: the words that captions are made of; none where they come as numbers.
      tokens: T, words of the longest caption and its end.
      numbers: how many numbers captions have where they come as numbers; 0: those of the vocabulary.
      dropout: probability with which `drop` takes a caption away.
    """

    vocabulary: Annotated[tuple[str, ...], Word()] = ()
    numbers: Annotated[int, Between(0, 2**24)] = 0

    pads = False

    def __post_init__(self):
        if self.numbers:
            nn.Module.__post_init__(self)
        else:
            super().__post_init__()

    @property
    def length(self) -> int:
        """One row."""
        return 1

    @property
    def most(self) -> int:
        """The largest number of a caption."""
        return (self.numbers or self.words.size) - 1

    @property
    def wanted(self) -> str:
        """What captions are, in messages."""
        return super().wanted.removeprefix("texts, or ") + ", or None" if self.numbers else super().wanted

    @property
    def writes(self) -> bool:
        """Whether what the segment says are words."""
        return not self.numbers

    def encode(self, texts) -> np.ndarray:
        """int32 [B, T] of B texts; of captions that come as numbers empty ones alone."""
        if not self.numbers:
            return super().encode(texts)
        if wrong := [text for text in texts if not isinstance(text, str) or text]:
            raise UserError(f"captions: expected {self.wanted}, found {wrong[0]!r:.80}")
        return np.tile(self._none(), (len(texts), 1))

    @property
    def segment(self) -> Segment:
        """Its slots: the caption's, and the numbers around it."""
        return Segment(NAME, Slot((), self.most + 3), Grid(((1, self.tokens + 2),)))

    def content(self, captions):
        """Captions [B, T] -> the segment's content, int32 [B, T + 2]."""
        around = [(0, 0), (1, 1)]
        ends = jnp.array([self.most + 1, self.most + 2])
        return jnp.pad(jnp.asarray(captions), around).at[:, jnp.array([0, -1])].set(ends)

    def texts(self, content) -> list[str]:
        """What a segment's content [B, T + 2] says: the words before the end."""
        numbers = np.asarray(content)[:, 1:-1]
        return self.words.decode(np.where(numbers > self.most, END, numbers))

    def learnt(self, captions):
        """float32 [B, T + 2]: 1 where the segment's content is to be learnt: nowhere without a caption."""
        there = jnp.any(captions != self._none(), axis=1, keepdims=True)
        return jnp.broadcast_to(there, (len(captions), self.tokens + 2)).astype(jnp.float32)

    def _none(self) -> np.ndarray:
        """int32 [T]: the empty caption."""
        return np.array([END] + [PAD] * (self.tokens - 1), np.int32)

    @nn.compact
    def __call__(self, captions) -> Condition:
        """int32 [B, T] -> a condition of one row, the same for all, and no vector."""
        init = logical(self.initial.table(), None, "embed")
        start = self.param("start", init, (1, self.width)).astype(self.dtype)
        return Condition(jnp.broadcast_to(start, (len(captions), *start.shape)))
