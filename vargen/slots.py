"""The slots of a picture: how many, where they lie, and what each of them holds."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Slot:
    """What one slot holds: codes, or numbers; or a code and numbers beside it, which are written as numbers all.

    Attributes:
      shape: () for one code, (Q,) for Q codes (residual quantisation), (C,) for C numbers, (1 + C,) for a code and C
        numbers.
      vocab: K, what each code is below; 0 for numbers.
      stop: the code with which an example ends, of several codes of a slot the first: the slots after it in the
        canonical layout are padding, which holds it too. None where every slot holds something.
      coded: K where the first of the numbers is a code below K, with the others beside it (HART, arXiv 2410.10812); 0
        where none is.
      bare: of such slots how many, the first ones in the canonical layout, hold a code alone: their numbers are zeros.
    """

    shape: tuple[int, ...]
    vocab: int = 0
    stop: int | None = None
    coded: int = 0
    bare: int = 0

    @property
    def kind(self) -> str:
        """ "codes" (int32) or "latents" (float32)."""
        return "codes" if self.vocab else "latents"

    @property
    def dtype(self) -> Any:
        """Of content: int32 or float32."""
        return jnp.int32 if self.vocab else jnp.float32

    def zeros(self, batch: int, slots: int) -> jax.Array:
        """Content of zeros: [B, N, *shape]."""
        return jnp.zeros((batch, slots, *self.shape), self.dtype)

    def exists(self, content: jax.Array) -> jax.Array | None:
        """bool [B, N]: which slots are no padding, the stop code among them; None where there is no stop code."""
        if self.stop is None:
            return None
        stops = self._stops(content)
        return jnp.cumsum(stops, axis=1) - stops == 0

    def stopped(self, content: jax.Array) -> jax.Array:
        """bool [B]: which examples have ended with a stop code."""
        return jnp.any(self._stops(content), axis=1)

    def _stops(self, content: jax.Array) -> jax.Array:
        """bool [B, N]: which slots hold the stop code."""
        first = content[..., 0] if self.shape else content
        return jnp.asarray(first == self.stop)

    def padded(self, content: jax.Array) -> jax.Array:
        """The content with stop codes in all padding."""
        exists = self.exists(content)
        if self.stop is None or exists is None:
            return content
        return jnp.where(exists[..., None] if self.shape else exists, content, self.stop)

    def apart(self, content: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A code int32 [...] and numbers float32 [..., C] of content [..., 1 + C] that holds both."""
        return content[..., 0].astype(jnp.int32), content[..., 1:]

    def codes(self, content: Any) -> Any:
        """What of the content is codes, int32 [...]; None where nothing is."""
        if self.coded:
            return self.apart(content)[0]
        return content if self.vocab else None

    def joined(self, codes: jax.Array, numbers: jax.Array) -> jax.Array:
        """The inverse of `apart`."""
        return jnp.concatenate([codes[..., None].astype(self.dtype), numbers], axis=-1)

    def __str__(self) -> str:
        if self.coded:
            return f"one of {self.coded} codes and {self.shape[-1] - 1} numbers"
        if not self.vocab:
            return f"{self.shape[-1]} numbers"
        return f"{self.shape[0]} of {self.vocab} codes" if self.shape else f"one of {self.vocab} codes"


@dataclasses.dataclass(frozen=True)
class Grid:
    """The slots of a tokenizer and where they lie.

    Slots are numbered level by level (coarse to fine), frame by frame, row by row: the canonical layout.

    Attributes:
      levels: (height, width) of each level, coarse to fine; one level for a plain grid.
      frames: frames per level.
    """

    levels: tuple[tuple[int, int], ...]
    frames: int = 1

    @functools.cached_property
    def level_sizes(self) -> tuple[int, ...]:
        """Slots per level."""
        return tuple(self.frames * h * w for h, w in self.levels)

    @functools.cached_property
    def even(self) -> np.ndarray:
        """bool [N]: the slots of even rows and columns, those of a picture of half the size, in its sequence."""
        return np.all(self.places[:, -2:] % 2 == 0, axis=-1)

    @functools.cached_property
    def level_starts(self) -> tuple[int, ...]:
        """The first slot of each level."""
        return tuple(int(x) for x in np.cumsum((0, *self.level_sizes))[:-1])

    @property
    def size(self) -> int:
        """N, the number of slots."""
        return sum(self.level_sizes)

    @functools.cached_property
    def coords(self) -> np.ndarray:
        """int32 [N, 4]: level, frame, row and column of every slot."""
        rows = []
        for level, (h, w) in enumerate(self.levels):
            index = np.indices((self.frames, h, w)).reshape(3, -1).T
            rows.append(np.concatenate([np.full((len(index), 1), level), index], axis=1))
        return np.concatenate(rows).astype(np.int32)

    @property
    def places(self) -> np.ndarray:
        """int32 [N, A]: where every slot lies within its level: ([frame,] row, column)."""
        return self.coords[:, 2:] if self.frames == 1 else self.coords[:, 1:]
