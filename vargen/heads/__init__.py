"""Heads: what distribution is put over the contents of slots. The axis's contract is `Head`, or `JointHead`."""

from vargen.heads import depth
from vargen.heads.categorical import Categorical
from vargen.heads.depth import Depth
from vargen.heads.diffusion import Diffusion
from vargen.heads.epsilon import Epsilon
from vargen.heads.flow import Flow
from vargen.heads.head import Head, JointHead, Sample
from vargen.heads.masked_lm import MaskedLM
from vargen.heads.staged import Staged
from vargen.heads.velocity import Velocity

HEADS = {
    "categorical": Categorical,
    "depth": depth.build,
    "diffusion": Diffusion,
    "epsilon": Epsilon,
    "flow": Flow,
    "masked_lm": MaskedLM,
    "staged": Staged,
    "velocity": Velocity,
}

__all__ = [
    "HEADS",
    "Categorical",
    "Depth",
    "Diffusion",
    "Epsilon",
    "Flow",
    "Head",
    "JointHead",
    "MaskedLM",
    "Sample",
    "Staged",
    "Velocity",
]
