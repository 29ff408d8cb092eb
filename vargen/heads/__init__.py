"""Heads: what distribution is put over the contents of slots. The axis's contract is `Head`."""

from vargen.heads.categorical import Categorical
from vargen.heads.diffusion import Diffusion
from vargen.heads.head import Head, Sample
from vargen.heads.masked_lm import MaskedLM

HEADS = {"categorical": Categorical, "diffusion": Diffusion, "masked_lm": MaskedLM}

__all__ = ["HEADS", "Categorical", "Diffusion", "Head", "MaskedLM", "Sample"]
