"""Heads: what distribution is put over the contents of slots. The axis's contract is `Head`."""

from collections.abc import Mapping
from typing import Annotated, Any

from vargen import parts
from vargen.heads.categorical import Categorical
from vargen.heads.diffusion import Diffusion
from vargen.heads.head import Head, Sample
from vargen.heads.segmented import Segmented
from vargen.heads.velocity import Velocity
from vargen.limits import AtLeast


def _segments(
    heads: Mapping[str, Any],
    segments,
    initial,
    dtype,
    weights: Annotated[tuple[float, ...], AtLeast(0)] = (),
):
    """A head for each segment of a sequence, and the weighted sum of their losses.

    Args:
      heads: the parts by the segments' names: text, picture.
      weights: of their losses, in the canonical layout (text, then the picture); none: 1 each.
    """
    built = {}
    for name, slot in ((s.name, s.slot) for s in segments if s.name in heads):  # `check` counts them
        sizes = dict(vocab=slot.vocab, channels=0 if slot.vocab else slot.shape[-1])
        context = dict(segments=(), initial=initial, dtype=dtype, **sizes)
        built[name] = parts.build(HEADS, heads[name], f"head.heads.{name}", **context)
    return Segmented(built, segments, weights)


HEADS = {
    "categorical": Categorical,
    "diffusion": Diffusion,
    "segments": _segments,
    "velocity": Velocity,
}

__all__ = ["HEADS", "Categorical", "Diffusion", "Head", "Sample", "Segmented", "Velocity"]
