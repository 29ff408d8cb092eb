"""Heads: what distribution is put over the contents of slots. The axis's contract is `Head`, or `JointHead`."""

from collections.abc import Mapping
from typing import Annotated, Any

from vargen import parts
from vargen.heads import depth
from vargen.heads.bernoulli_diffusion import BernoulliDiffusion
from vargen.heads.categorical import Categorical
from vargen.heads.depth import Depth
from vargen.heads.diffusion import Diffusion
from vargen.heads.dit import Dit
from vargen.heads.epsilon import Epsilon
from vargen.heads.flow import Flow
from vargen.heads.head import Head, JointHead, Sample
from vargen.heads.hybrid import Hybrid
from vargen.heads.masked_lm import MaskedLM
from vargen.heads.rounds import ROUNDS, Rounds
from vargen.heads.segmented import Segmented
from vargen.heads.staged import Staged
from vargen.heads.v_diffusion import VDiffusion
from vargen.heads.velocity import Velocity
from vargen.limits import EPS, Above, AtLeast, Between, OneOf


def _segments(
    heads: Mapping[str, Any],
    tokenizer,
    stage,
    segments,
    initial,
    dtype,
    weights: Annotated[tuple[float, ...], AtLeast(0)] = (),
) -> Segmented:
    """A head for each segment of a sequence, and the weighted sum of their losses.

    Args:
      heads: the parts by the segments' names: text, picture.
      weights: of their losses, in the canonical layout (text, then the picture); none: 1 each.
    """
    built = {}
    for name, slot in ((s.name, s.slot) for s in segments if s.name in heads):  # `check` counts them
        sizes = dict(vocab=slot.vocab, channels=0 if slot.vocab else slot.shape[-1])
        context = dict(tokenizer=tokenizer, stage=stage, segments=(), initial=initial, dtype=dtype, **sizes)
        built[name] = parts.build(HEADS, heads[name], f"head.heads.{name}", **context)
    return Segmented(built, segments, weights)


def _rounds(
    heads: Mapping[str, Any],
    tokenizer,
    stage,
    vocab,
    channels,
    initial,
    dtype,
    weights: Annotated[tuple[float, ...], AtLeast(0)] = (),
) -> Rounds:
    """A head for each round of the feed pivots, and the weighted sum of their losses.

    Args:
      heads: the parts by name: pivots, picture.
      weights: of their losses, in that sequence; none: 1 each.
    """
    sizes = dict(vocab=vocab, channels=channels, segments=())
    context = dict(tokenizer=tokenizer, stage=stage, initial=initial, dtype=dtype, **sizes)
    known = {name: heads[name] for name in ROUNDS if name in heads}  # `check` counts them
    built = {name: parts.build(HEADS, part, f"head.heads.{name}", **context) for name, part in known.items()}
    return Rounds(tokenizer.grid, built, weights)


def _hybrid(
    heads: Mapping[str, Any],
    tokenizer,
    stage,
    vocab,
    channels,
    initial,
    dtype,
    weight: Annotated[float, AtLeast(0)] = 1.0,
    scale: Annotated[float, Above(0)] = 1.0,
    told: Annotated[str, OneOf("drawn", "true")] = "drawn",
    top_k: Annotated[int, Between(0, 2**24)] = 0,
    top_p: Annotated[float, Between(0, 1, above=True)] = 1.0,
    norm: Annotated[str, OneOf("layer", "rms")] = "rms",
    eps: Annotated[float, EPS] = 1e-6,
) -> Hybrid:
    """A head for the code and one for the numbers beside it; the other options as `Hybrid`'s attributes.

    Args:
      heads: the parts by name: codes, numbers.
    """
    context = dict(tokenizer=tokenizer, stage=stage, segments=(), initial=initial, dtype=dtype)
    sizes = dict(codes=dict(vocab=vocab, channels=0), numbers=dict(vocab=0, channels=channels))
    if {*heads} != {*sizes}:
        found = ", ".join(heads) or "none"
        raise ValueError(
            f"config field head.heads: expected a head for each of codes, numbers, found {found}"
        )
    built = {
        name: parts.build(HEADS, heads[name], f"head.heads.{name}", **context, **own)
        for name, own in sizes.items()
    }
    options = dict(weight=weight, scale=scale, told=told, top_k=top_k, top_p=top_p, norm=norm, eps=eps)
    return Hybrid(tokenizer, **built, **options, dtype=dtype)


HEADS = {
    "bernoulli_diffusion": BernoulliDiffusion,
    "categorical": Categorical,
    "depth": depth.build,
    "diffusion": Diffusion,
    "dit": Dit,
    "epsilon": Epsilon,
    "flow": Flow,
    "hybrid": _hybrid,
    "masked_lm": MaskedLM,
    "rounds": _rounds,
    "segments": _segments,
    "staged": Staged,
    "v_diffusion": VDiffusion,
    "velocity": Velocity,
}

__all__ = [
    "HEADS",
    "BernoulliDiffusion",
    "Categorical",
    "Depth",
    "Diffusion",
    "Dit",
    "Epsilon",
    "Flow",
    "Head",
    "Hybrid",
    "JointHead",
    "MaskedLM",
    "Rounds",
    "Sample",
    "Segmented",
    "Staged",
    "VDiffusion",
    "Velocity",
]
