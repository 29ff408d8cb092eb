"""A head for each segment of a sequence, and the sum of their losses (Orthus, arXiv 2412.00127)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen.content import take
from vargen.heads.head import Sample
from vargen.segments import Segment, Slots, rows_of


class Segmented(nn.Module):
    """Each segment's own head over the rows that predict its slots; the loss is the weighted sum of theirs.

    Attributes:
      heads: a part for each segment, in the canonical layout; here already built.
      segments: whose they are.
      weights: of their losses; none: 1 each.
    """

    heads: tuple[nn.Module, ...]
    segments: tuple[Segment, ...]
    weights: tuple[float, ...] = ()

    explicit = False

    def check(self, slot) -> None:
        """Raises ValueError for another number of segments, and what the heads don't model."""
        for name, found in (("heads", self.heads), ("weights", self.weights)):
            if len(found) != len(self.segments) and (found or name == "heads"):
                names = ", ".join(segment.name for segment in self.segments)
                raise ValueError(
                    f"config field head.{name}: expected one for each of {names}, found {len(found)}"
                )
        if not isinstance(slot, Slots):
            raise ValueError(f"head segments: expected a sequence of several segments, found slots of {slot}")
        for head, segment in zip(self.heads, self.segments, strict=True):
            head.check(segment.slot)

    def __call__(self, hidden):
        """Touches all parameters (for initialisation): [..., D] -> float32 [..., all outputs]."""
        return jnp.concatenate([head(hidden) for head in self.heads], axis=-1)

    def loss(self, hidden, target, layout, weight=None, train: bool = True):
        """The weighted sum over segments, of whole passes; see `Head.loss`.

        Returns:
          The loss, and metrics: of each segment its `loss`, and its head's, with its name before them.
        """
        total, metrics = 0.0, {}
        for number, (head, segment) in enumerate(zip(self.heads, self.segments, strict=True)):
            rows = rows_of(layout.segments, number, segment.grid.size)
            own = None if weight is None else take(weight, rows)
            loss, more = head.loss(take(hidden, rows), take(target[segment.name], rows), None, own, train)
            total = total + (self.weights[number] if self.weights else 1.0) * loss
            metrics |= {f"{segment.name}_{name}": x for name, x in dict(more, loss=loss).items()}
        return total, metrics

    def sample(self, hidden, draws, layout, settings, guidance=None) -> Sample:
        """Draws contents of one segment's slots, zeros in those of the others, see `Head.sample`."""
        number = int(np.reshape(layout.segments, -1)[0])
        drawn = self.heads[number].sample(hidden, draws, None, settings, guidance).content
        content: dict[str, Any] = {s.name: s.slot.zeros(*draws.shape) for s in self.segments}
        return Sample(content | {self.segments[number].name: drawn}, None)
