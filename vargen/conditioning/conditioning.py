"""The conditioning axis: what is known of the picture before its first slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vargen.conditioning.condition import Condition
from vargen.layers import Linen
from vargen.segments import Segment


class Conditioning(Linen, Protocol):
    """A Linen module from labels, any pytree of arrays with a leading axis of examples, to a `Condition`.

    Attributes:
      length: P, the rows that it makes.
      pooled: whether it also gives a vector.
      pads: whether rows may be padding.
      takes: what labels are: "classes" of the data, its captions as "texts", or "embeddings" of a text encoder.
      remembers: whether it makes a memory (`Condition.memory`), which needs blocks with cross-attention.
      writes: whether what the segment's content says are words, which `texts` gives.
      segment: the slots of the sequence whose content labels are; None where they are no part of it.
    """

    @property
    def length(self) -> int: ...
    @property
    def pooled(self) -> bool: ...
    @property
    def pads(self) -> bool: ...
    @property
    def takes(self) -> str: ...
    @property
    def remembers(self) -> bool: ...
    @property
    def writes(self) -> bool: ...
    @property
    def segment(self) -> Segment | None: ...

    def parse(self, labels: Any, /, names: Sequence[str] = ()) -> Any:
        """Labels from what a user gave; `names` are those of the classes. Raises UserError for what it can't be."""
        ...

    def example(self) -> Any:
        """Labels of one example, for initialisation."""
        ...

    def drop(self, labels: Any, /, key: Any) -> Any:
        """Labels, some of them taken away at random (classifier-free guidance, arXiv 2207.12598)."""
        ...

    def without(self, labels: Any, /) -> Any:
        """As many labels, all of them taken away."""
        ...

    def content(self, labels: Any, /) -> Any:
        """The content of the segment, [B, n, *slot.shape]; where there is one."""
        ...

    def learnt(self, labels: Any, /) -> Any:
        """float32 [B, n]: 1 where that is to be learnt; where there is one."""
        ...

    def texts(self, content: Any) -> list[str]:
        """What the segment's content [B, n, ...] says; where it `writes`."""
        ...

    def __call__(self, labels: Any, /) -> Condition:
        """The condition of B labels."""
        ...


class Apart:
    """What conditionings have in common whose labels are no part of the sequence."""

    segment = None
    remembers = False
    writes = False

    def content(self, labels: Any) -> Any:
        """There is none."""
        raise NotImplementedError

    learnt = texts = content
