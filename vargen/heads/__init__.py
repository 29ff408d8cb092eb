"""Heads: what distribution is put over the contents of slots. The axis's contract is `Head`, or `JointHead`."""

from vargen.heads.categorical import Categorical
from vargen.heads.diffusion import Diffusion
from vargen.heads.head import Head, JointHead, Sample


HEADS = {"categorical": Categorical, "diffusion": Diffusion}

__all__ = ["HEADS", "Categorical", "Diffusion", "Head", "JointHead", "Sample"]
