"""Captions word by word: a learned row for each, before the image's."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import inputs
from vargen.conditioning.condition import Condition
from vargen.conditioning.conditioning import Apart
from vargen.errors import UserError
from vargen.layers import Embed, Initial, logical
from vargen.limits import SHARE
from vargen.words import LENGTH, PAD, Word, Words


class WordEmbedding(Apart, nn.Module):
    """A row per word: its embedding plus that of its place in the caption.

    Captions are int32 [B, T], as `words.Words` encodes them: their words, the end, padding. Behind the numbers of the
    vocabulary comes one that stands for no caption (arXiv 2207.12598).

    Attributes:
      width: D.
      initial: of the parameters.
      vocabulary: the words that captions are made of.
      tokens: T, words of the longest caption and its end; also the number of rows.
      dropout: probability with which `drop` takes a caption away.
    """

    width: int
    initial: Initial
    vocabulary: Annotated[tuple[str, ...], Word()]
    tokens: Annotated[int, LENGTH] = 32
    dropout: Annotated[float, SHARE] = 0.1
    dtype: Any = jnp.float32

    takes = "texts"
    pads = True
    pooled = False

    def __post_init__(self):
        super().__post_init__()
        _words(self.vocabulary, self.tokens)  # which checks them

    @property
    def length(self) -> int:
        """P, the rows that it makes."""
        return self.tokens

    @property
    def words(self) -> Words:
        """The numbers of the words."""
        return _words(self.vocabulary, self.tokens)

    @property
    def null(self) -> int:
        """The number that stands for no caption."""
        return self.words.size

    @property
    def most(self) -> int:
        """The largest number."""
        return self.null

    @property
    def wanted(self) -> str:
        """What captions are, in messages."""
        return f"texts, or whole numbers [B, {self.tokens}] from 0 to {self.most}"

    def encode(self, texts) -> np.ndarray:
        """int32 [B, T] of B texts; errors as of `words.Words.encode`."""
        return self.words.encode(texts)

    def parse(self, captions, names=()) -> Any:
        """int32 [B, T] from what a user gave: texts, one text, None for no caption, or such numbers.

        Raises:
          UserError: none of these; a word outside the vocabulary, a caption longer than T - 1 words; numbers of
            another shape, out of range, or padding alone.
        """
        if captions is None or isinstance(captions, str):
            captions = [captions]
        if isinstance(captions, (list, tuple)) and any(c is None or isinstance(c, str) for c in captions):
            found = self.encode(["" if c is None else c for c in captions])
            return np.where([[c is None] for c in captions], self._none(), found)
        wanted = self.wanted
        found = inputs.array(captions, "captions", wanted)
        if not jnp.issubdtype(found.dtype, jnp.integer):
            raise UserError(f"captions: expected {wanted}, found {found.dtype}")
        if found.ndim != 2 or found.shape[1] != self.tokens or not found.shape[0]:
            raise UserError(f"captions: expected {wanted}, found an array {list(found.shape)}")
        if not isinstance(found, jax.core.Tracer):
            values = np.asarray(found)
            outside = values[(values < 0) | (values > self.most)]
            if outside.size:
                raise UserError(f"captions: expected {wanted}, found {outside[0]}")
            if (empty := np.flatnonzero((values == PAD).all(axis=1))).size:
                raise UserError(f"captions: expected a word or an end in each, found none in {empty[0]}")
        return found.astype(np.int32)

    def _none(self) -> np.ndarray:
        """int32 [T]: no caption, one row."""
        return np.array([self.null] + [PAD] * (self.tokens - 1), np.int32)

    def example(self) -> jax.Array:
        """int32 [1, T]: no caption, for initialisation."""
        return jnp.asarray(self._none())[None]

    def without(self, captions):
        """int32 [B, T]: as many times no caption as there are captions."""
        return jnp.broadcast_to(self._none(), captions.shape)

    def drop(self, captions, key):
        """int32 [B, T]: captions [B, T], each replaced by none with probability `dropout`."""
        gone = jax.random.bernoulli(key, self.dropout, captions.shape[:1])
        return jnp.where(gone[:, None], self._none(), captions)

    @nn.compact
    def __call__(self, captions) -> Condition:
        """int32 [B, T] -> a condition of T rows, the padding first and hidden, and no vector."""
        return self.rows(captions)

    def rows(self, captions) -> Condition:
        """The same; called once, by whoever makes the condition."""
        init = self.initial.table()
        x = Embed(self.null + 1, self.width, init, dtype=self.dtype, name="words")(captions)
        places = self.param("places", logical(init, None, "embed"), (self.tokens, self.width))
        x = x + places.astype(self.dtype)
        # The last row predicts the first slot: it is the caption's end.
        order = jnp.argsort(captions != PAD, axis=1, stable=True)
        rows = jnp.take_along_axis(x, order[..., None], axis=1)
        return Condition(rows, padding=jnp.take_along_axis(captions == PAD, order, axis=1))


@functools.lru_cache(maxsize=16)
def _words(vocabulary: tuple[str, ...], tokens: int) -> Words:
    return Words(vocabulary, tokens)
