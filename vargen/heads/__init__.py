"""Heads: what distribution is put over the contents of slots. The axis's contract is `Head`."""

from typing import Annotated

from vargen import parts
from vargen.heads.categorical import Categorical
from vargen.heads.diffusion import Diffusion
from vargen.heads.head import Head, Sample
from vargen.heads.segmented import Segmented
from vargen.heads.velocity import Velocity
from vargen.limits import AtLeast


def _segments(heads, segments, initial, dtype, weights: Annotated[tuple[float, ...], AtLeast(0)] = ()):
    """A head for each segment of a sequence, and the weighted sum of their losses.

    Args:
      heads: the parts, one for each segment in the canonical layout (text, then the picture).
      weights: of their losses; none: 1 each.
    """
    built = []
    for part, segment in zip(heads, segments):  # `check` counts them
        slot = segment.slot
        sizes = dict(vocab=slot.vocab, channels=0 if slot.vocab else slot.shape[-1])
        found = parts.build(HEADS, part, "head.heads", segments=(), initial=initial, dtype=dtype, **sizes)
        built.append(found)
    return Segmented(tuple(built), segments, weights)


HEADS = {
    "categorical": Categorical,
    "diffusion": Diffusion,
    "segments": _segments,
    "velocity": Velocity,
}

__all__ = ["HEADS", "Categorical", "Diffusion", "Head", "Sample", "Segmented", "Velocity"]
