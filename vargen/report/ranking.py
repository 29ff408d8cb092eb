"""Numbers over seeds, and who stands where by them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A number over several seeds.

    Attributes:
      mean: its mean.
      deviation: sample standard deviation (divided by count - 1); None of one seed.
      count: of seeds.
    """

    mean: float
    deviation: float | None
    count: int

    @property
    def low(self) -> float:
        """The mean less the deviation."""
        return self.mean - (self.deviation or 0.0)

    @property
    def high(self) -> float:
        """The mean and the deviation."""
        return self.mean + (self.deviation or 0.0)


def spread(values: Sequence[float]) -> Spread | None:
    """Of the finite ones among values; None where there are none."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return None
    mean, count = math.fsum(finite) / len(finite), len(finite)
    if count == 1:
        return Spread(mean, None, 1)
    return Spread(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in finite) / (count - 1)), count)


def tied(a: Spread, b: Spread) -> bool:
    """Whether the intervals from `low` to `high` of two overlap; those of one seed are points."""
    return a.low <= b.high and b.low <= a.high


def ranks(found: Mapping[str, Spread]) -> dict[str, int]:
    """Rank of each by a number of which less is better: 1, and one more for each whose interval lies wholly below.

    Two whose intervals overlap are tied. That is no equivalence: a tie of a and b, and one of b and c, is none of a and
    c, whose ranks then differ while b's is a's or between. Ordered by rank, then by mean.
    """
    every = {name: 1 + sum(other.high < own.low for other in found.values()) for name, own in found.items()}
    return dict(sorted(every.items(), key=lambda item: (item[1], found[item[0]].mean)))


def ties(found: Mapping[str, Spread]) -> dict[str, list[str]]:
    """Of each those that it is tied with, the best first."""
    order = ranks(found)
    return {a: [b for b in order if b != a and tied(found[a], found[b])] for a in order}
