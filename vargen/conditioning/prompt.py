"""Prompts before the picture in the numbers of a language model's tokenizer (Chameleon, arXiv 2405.09818)."""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vargen.conditioning.condition import Condition
from vargen.conditioning.text import NAME, Text
from vargen.errors import UserError
from vargen.layers import logical
from vargen.limits import Between
from vargen.segments import Segment
from vargen.slots import Grid, Slot

NUMBER = Between(0, 2**24)


class Prompt(Text):
    """Slots of the sequence before those of the picture, as `Text`, with nothing between a prompt and the picture.

    Prompts are int32 [B, T], padded to T: padding goes to the front, and nobody looks at it, nor at the row that
    begins the sequence, so that a prompt's first number is the first thing seen. Behind it stands a number that begins
    a picture. Without a prompt it is `empty`.

    Attributes:
      numbers: how many numbers there are.
      tokens: T, numbers of the longest prompt.
      pad: the number that pads.
      begin: the number that begins a picture.
      empty: the numbers of no prompt.
      dropout: probability with which `drop` takes a prompt away.
    """

    numbers: Annotated[int, Between(2, 2**24)] = 2
    pad: Annotated[int, NUMBER] = 0
    begin: Annotated[int, NUMBER] = 1
    empty: Annotated[tuple[int, ...], NUMBER] = (1,)

    pads = True

    def __post_init__(self):
        super().__post_init__()
        if self.vocabulary:
            raise UserError("config field conditioning.vocabulary: expected none, as prompts are numbers")
        for name, values in (("pad", [self.pad]), ("begin", [self.begin]), ("empty", self.empty)):
            if wrong := [x for x in values if x > self.most]:
                raise UserError(
                    f"config field conditioning.{name}: expected numbers below {self.numbers}, found {wrong[0]}"
                )
        if not 0 < len(self.empty) <= self.tokens or self.pad in self.empty:
            raise UserError(
                f"config field conditioning.empty: expected 1 to {self.tokens} numbers, none of them the padding "
                f"{self.pad}, found {self.empty}"
            )

    @property
    def wanted(self) -> str:
        """What prompts are, in messages."""
        return f"whole numbers [B, up to {self.tokens}] from 0 to {self.most}, or None"

    @property
    def segment(self) -> Segment:
        """Its slots: the prompt's, and the number that begins a picture."""
        return Segment(NAME, Slot((), self.numbers), Grid(((1, self.tokens + 1),)))

    def parse(self, captions, names=()):
        """int32 [B, T] from what a user gave: such numbers, of no more columns, or None for no prompt.

        Raises:
          UserError: none of these, out of range, or padding alone.
        """
        if hasattr(captions, "ndim") and captions.ndim == 2 and captions.shape[1] < self.tokens:
            missing = self.tokens - captions.shape[1]
            captions = np.pad(captions, [(0, 0), (missing, 0)], constant_values=self.pad)
        found = super().parse(captions, names)
        if isinstance(found, np.ndarray) and (bare := (found == self.pad).all(axis=1)).any():
            raise UserError(f"captions: expected more than padding in each, found none in {bare.argmax()}")
        return found

    def _ahead(self, captions):
        """int32 [B, T]: prompts with their padding first."""
        order = jnp.argsort(captions != self.pad, axis=1, stable=True)
        return jnp.take_along_axis(jnp.asarray(captions), order, axis=1)

    def content(self, captions):
        """Prompts [B, T] -> the segment's content, int32 [B, T + 1]."""
        return jnp.pad(self._ahead(captions), ((0, 0), (0, 1)), constant_values=self.begin)

    def learnt(self, captions):
        """float32 [B, T + 1]: 1 where the segment's content is to be learnt: behind a prompt's first number."""
        told = jnp.pad(self._ahead(captions) != self.pad, ((0, 0), (1, 0)))
        there = jnp.any(captions != self._none(), axis=1, keepdims=True)
        return (told & there).astype(jnp.float32)

    def _none(self) -> np.ndarray:
        """int32 [T]: no prompt."""
        return np.array([self.pad] * (self.tokens - len(self.empty)) + list(self.empty), np.int32)

    @nn.compact
    def __call__(self, captions) -> Condition:
        """int32 [B, T] -> a condition of one row that nobody looks at, nor at those of the slots with padding."""
        init = logical(self.initial.table(), None, "embed")
        start = self.param("start", init, (1, self.width)).astype(self.dtype)
        padding = jnp.pad(self._ahead(captions) == self.pad, ((0, 0), (1, 0)), constant_values=True)
        return Condition(jnp.broadcast_to(start, (len(captions), *start.shape)), padding=padding)
