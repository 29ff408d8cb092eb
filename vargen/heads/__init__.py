"""Heads: what distribution is put over the contents of slots. The axis's contract is `Head`."""

from vargen.heads.categorical import Categorical
from vargen.heads.diffusion import Diffusion
from vargen.heads.flow import Flow
from vargen.heads.head import Head, Sample

HEADS = {"categorical": Categorical, "diffusion": Diffusion, "flow": Flow}

__all__ = ["HEADS", "Categorical", "Diffusion", "Flow", "Head", "Sample"]
