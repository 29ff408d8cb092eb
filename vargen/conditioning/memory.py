"""Captions word by word, as a memory that every block looks at (as Muse's, arXiv 2301.00704)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from vargen.conditioning.condition import Condition
from vargen.conditioning.words import WordEmbedding
from vargen.layers import logical


class WordMemory(WordEmbedding):
    """A learned row that begins the sequence, and a row per word beside it, for cross-attention.

    Attributes:
      vocabulary: the words that captions are made of.
      tokens: T, words of the longest caption and its end.
      dropout: probability with which `drop` takes a caption away.
    """

    pads = False
    remembers = True

    @property
    def length(self) -> int:
        """One row."""
        return 1

    @nn.compact
    def __call__(self, captions) -> Condition:
        """int32 [B, T] -> a condition of one row, the same for all, and a memory of T; no vector."""
        words = self.rows(captions)
        init = logical(self.initial.table(), None, "embed")
        start = self.param("start", init, (1, self.width)).astype(self.dtype)
        start = jnp.broadcast_to(start, (len(captions), *start.shape))
        return dataclasses.replace(
            words, prefix=start, padding=None, memory=words.prefix, hidden=words.padding
        )
