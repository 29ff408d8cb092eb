"""Heads: what distribution is put over the contents of slots. The axis's contract is `Head`."""

from vargen.heads import depth
from vargen.heads.categorical import Categorical
from vargen.heads.depth import Depth
from vargen.heads.diffusion import Diffusion
from vargen.heads.head import Head, Sample
from vargen.heads.staged import Staged

HEADS = {"categorical": Categorical, "depth": depth.build, "diffusion": Diffusion, "staged": Staged}

__all__ = ["HEADS", "Categorical", "Depth", "Diffusion", "Head", "Sample", "Staged"]
