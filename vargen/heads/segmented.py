"""A head for each segment of a sequence, and the sum of their losses (Orthus, arXiv 2412.00127)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vargen.content import take
from vargen.heads.head import Head, Sample
from vargen.heads.plain import Plain
from vargen.segments import PICTURE, Segment, Slots, rows_of


class Segmented(Plain):
    """Each segment's own head over the rows that predict its slots; the loss is the weighted sum of theirs.

    Attributes:
      heads: by the segments' names, already built.
      segments: whose they are, in the canonical layout.
      weights: of their losses, in that layout; none: 1 each.
    """

    heads: Mapping[str, Head]
    segments: tuple[Segment, ...]
    weights: tuple[float, ...] = ()

    called = "segments"  # in messages

    def check(self, slot) -> None:
        """Raises ValueError for another number of segments, what the heads don't model, and heads that need more than
        the rows of their own slots behind the last stage."""
        if not isinstance(slot, Slots):
            raise ValueError(f"head segments: expected a sequence of several segments, found slots of {slot}")
        names = [segment.name for segment in self.segments]
        for field, found in (("heads", self.heads), ("weights", self.weights)):
            if len(found) != len(names) and (found or field == "heads"):
                raise ValueError(
                    f"config field head.{field}: expected one for each of {', '.join(names)}, found {len(found)}"
                )
        for segment in self.segments:
            head = self.heads[segment.name]
            head.check(segment.slot)
            if head.noise_levels is not None or head.each_stage or head.shares:
                raise ValueError(
                    f"config field head.heads.{segment.name}: expected a head that reads the rows of its own slots "
                    f"alone, in one pass, such as categorical or v_diffusion, found {head.called}"
                )

    def __call__(self, hidden):
        """Touches all parameters (for initialisation): [B, n, D] -> what each head makes of it, by segments."""
        return {s.name: self.heads[s.name](hidden) for s in self.segments}

    def loss(self, hidden, target, layout, weight=None, train: bool = True, quantizer=None, soft=None):
        """The weighted sum over segments, of whole passes; see `Head.loss`. What is `soft` is the picture's.

        Returns:
          The loss, and metrics: of each segment its `loss`, and its head's, with its name before them.
        """
        total, metrics = 0.0, {}
        for number, segment in enumerate(self.segments):
            head = self.heads[segment.name]
            rows = rows_of(layout.segments, number, segment.grid.size)
            own = None if weight is None else take(weight, rows)
            loss, more = head.loss(
                take(hidden, rows),
                take(target[segment.name], rows),
                layout.part(rows),
                own,
                train,
                quantizer,
                None if soft is None or segment.name != PICTURE else take(soft, rows),
            )
            total = total + (self.weights[number] if self.weights else 1.0) * loss
            metrics |= {f"{segment.name}_{name}": x for name, x in dict(more, loss=loss).items()}
        return total, metrics

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """Draws contents of one segment's slots, zeros in those of the others, see `Head.sample`."""
        number = int(np.reshape(layout.segments, -1)[0])
        name = self.segments[number].name
        drawn = self.heads[name].sample(hidden, draws, layout, settings, guidance, quantizer).content
        content: dict[str, Any] = {s.name: s.slot.zeros(*draws.shape) for s in self.segments}
        return Sample(content | {name: drawn}, None)
