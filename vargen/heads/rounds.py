"""A head for each round of a feed (Hi-MAR, arXiv 2505.20288)."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from vargen.content import repeat_to, take
from vargen.heads.head import Around, Head, Sample
from vargen.heads.plain import OfLatents
from vargen.slots import Grid

ROUNDS = ("pivots", "picture")


class Rounds(OfLatents):
    """Each round's own head over the rows of its level; the loss is the weighted sum of theirs.

    Attributes:
      grid: the slots, a level for each round.
      heads: by the names of the rounds (`ROUNDS`), already built.
      weights: of their losses; none: 1 each.
    """

    grid: Grid
    heads: Mapping[str, Head]
    weights: tuple[float, ...] = ()

    around = True
    called = "rounds"

    rounds = len(ROUNDS)

    def check(self, slot) -> None:
        """Raises ValueError for codes, for other heads than one a round, and what they don't model."""
        super().check(slot)
        for field, found in (("heads", self.heads), ("weights", self.weights)):
            if len(found) != len(ROUNDS) and (found or field == "heads"):
                raise ValueError(
                    f"config field head.{field}: expected one for each of {', '.join(ROUNDS)}, found {len(found)}"
                )
        for part in self.heads.values():
            part.check(slot)
            if part.noise_levels is not None or part.rounds > 1:
                raise ValueError(
                    f"config field head.heads: expected heads of one round that draw in one pass, found {part.called}"
                )

    def __call__(self, hidden):
        """Touches all parameters (for initialisation): [B, n, D] -> float32 [B, n, all outputs]."""
        return jnp.concatenate([self.heads[name](hidden) for name in ROUNDS], axis=-1)

    def loss(self, hidden, target, layout, weight=None, train: bool = True, quantizer=None, soft=None):
        """The weighted sum over rounds, of a whole pass; see `Head.loss`.

        Returns:
          The loss, and metrics: of each round its `loss`, and its head's, with its name before them.
        """
        total, metrics = 0.0, {}
        for level, name in enumerate(ROUNDS):
            own = self._slots(level)
            weights = None if weight is None else weight[:, own]
            told = layout.part(np.arange(own.start, own.stop))
            loss, more = self.heads[name].loss(
                hidden[:, own], target[:, own], told, weights, train, quantizer
            )
            total = total + (self.weights[level] if self.weights else 1.0) * loss
            metrics |= {f"{name}_{key}": x for key, x in dict(more, loss=loss).items()}
        return total, metrics

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """Draws contents of a step's slots by the head of its level, see `Head.sample`."""
        level = int(np.reshape(layout.segments, -1)[0])
        part, own = self.heads[ROUNDS[level]], self._slots(level)
        slots = jnp.clip(around.slots - own.start, 0, own.stop - own.start - 1)
        args = (layout, settings, guidance, quantizer)
        if part.around:
            draws = draws.at(
                jnp.broadcast_to(jnp.arange(own.start, own.stop), (len(slots), own.stop - own.start))
            )
            own_content = Around(slots, around.content[:, own], around.known[:, own])
            return part.sample(hidden, draws, *args, own_content)
        return part.sample(take(hidden, repeat_to(slots, len(hidden))), draws.at(around.slots), *args)

    def _slots(self, level: int) -> slice:
        """Those of a level."""
        start = self.grid.level_starts[level]
        return slice(start, start + self.grid.level_sizes[level])
