"""Budgets of `vargen compare`: how much training is, in seconds, images or FLOPs, and how many updates that makes."""

from __future__ import annotations

import argparse
import dataclasses
import re

from vargen.errors import UserError

SECONDS, IMAGES, FLOPS = "s", "images", "flops"
UNITS = dict(s=(SECONDS, 1), m=(SECONDS, 60), h=(SECONDS, 3600), images=(IMAGES, 1), flops=(FLOPS, 1))
PREFIXES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
FORM = "a number and s, m, h, images or flops, such as 120s, 50k images or 3e14flops"


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is spent on a training.

    Attributes:
      amount: above 0.
      unit: `SECONDS` of training by the clock, compilation among them; `IMAGES` that are seen; or `FLOPS` of products.
    """

    amount: float
    unit: str

    @property
    def words(self) -> str:
        """For people."""
        amount = f"{self.amount:,.0f}" if self.amount < 1e7 and self.amount % 1 == 0 else f"{self.amount:g}"
        return f"{amount} {dict(s='s', images='images', flops='FLOPs')[self.unit]}"

    def __str__(self) -> str:
        amount = f"{self.amount:.0f}" if self.amount < 1e7 and self.amount % 1 == 0 else f"{self.amount:g}"
        return f"{amount.replace('+', '')}{self.unit}"


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an update takes.

    Attributes:
      images: of a batch.
      flops: of an image, see `training.work`.
      compiling, update: seconds, as a pilot measured them; None where nobody did.
    """

    images: int
    flops: float
    compiling: float | None = None
    update: float | None = None


def parse(text: str) -> Budget:
    """A budget as of the command line.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    found = re.fullmatch(r"\s*([0-9]+\.?[0-9]*(?:e\+?[0-9]+)?)\s*([kMGTPE]?)\s*(images|flops|[smh])\s*", text)
    if not found or (found[2] and len(found[3]) == 1):
        raise argparse.ArgumentTypeError(f"expected {FORM}, found {text!r:.100}")
    unit, times = UNITS[found[3]]
    amount = float(found[1]) * times * PREFIXES[found[2]]
    if not 0 < amount < 1e30:
        raise argparse.ArgumentTypeError(
            f"expected more than nothing and less than 1e30, found {text!r:.100}"
        )
    return Budget(amount, unit)


def several(text: str) -> tuple[Budget, ...]:
    """Budgets of one unit, with commas between them, from the smallest.

    Raises:
      argparse.ArgumentTypeError: one is none, there are two units, or one stands there twice.
    """
    found = sorted((parse(word) for word in text.split(",")), key=lambda b: b.amount)
    if len({b.unit for b in found}) > 1:
        raise argparse.ArgumentTypeError(f"expected budgets of one unit, found {text!r:.100}")
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected different budgets, found {text!r:.100}")
    return tuple(found)


def steps(budget: Budget, cost: Cost, name: str, flag: str = "--budget") -> int:
    """Updates that a budget pays for.

    Args:
      budget: it.
      cost: of an update.
      name: whose update, for messages.
      flag: which budget, likewise.

    Raises:
      UserError: not even one; where it is for compilation, how long that took.
    """
    if budget.unit == SECONDS:
        assert cost.compiling is not None and cost.update is not None
        if (found := int((budget.amount - cost.compiling) / cost.update)) < 1:
            raise UserError(
                f"{flag} {budget}: expected time for compiling {name}, {cost.compiling:.1f} s, and an update, "
                f"{cost.update:.2f} s, found {budget.amount:g} s"
            )
        return found
    update = cost.images * (cost.flops if budget.unit == FLOPS else 1)
    if (found := int(budget.amount / update)) < 1:
        raise UserError(
            f"{flag} {budget}: expected at least an update of {name}, {update:.4g} {budget.unit}, found less"
        )
    return found
