"""The conditioning axis: what is known of the picture before its first slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vargen.conditioning.condition import Condition


class Conditioning(Protocol):
    """A Linen module from labels, any pytree of arrays with a leading axis of examples, to a `Condition`.

    Attributes:
      length: P, the rows that it makes.
      pooled: whether it also gives a vector.
      pads: whether rows may be padding.
    """

    @property
    def length(self) -> int: ...

    pooled: bool
    pads: bool

    def parse(self, labels: Any, names: Sequence[str] = ()) -> Any:
        """Labels from what a user gave; `names` are those of the classes. Raises UserError for what it can't be."""
        ...

    def example(self) -> Any:
        """Labels of one example, for initialisation."""
        ...

    def drop(self, labels: Any, key: Any) -> Any:
        """Labels, some of them taken away at random (classifier-free guidance, arXiv 2207.12598)."""
        ...

    def without(self, labels: Any) -> Any:
        """As many labels, all of them taken away."""
        ...

    def __call__(self, labels: Any) -> Condition:
        """The condition of B labels."""
        ...
