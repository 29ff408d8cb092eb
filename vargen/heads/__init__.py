"""Heads: the distribution over one slot's content, given the hidden vector of its row.

A head is a Linen module with `loss(hidden, target, weight, train)`, `sample(hidden, keys, ...)` and, where the
distribution is explicit, `log_prob(hidden, target)`.
"""

from vargen.heads.categorical import Categorical
from vargen.heads.diffusion import Diffusion

HEADS = {"categorical": Categorical, "diffusion": Diffusion}

__all__ = ["HEADS", "Categorical", "Diffusion"]
