"""Norms of rows, and what modulates them: by themselves, or on the way of other kernels."""

from vargen.kernels.norming.call import normed
from vargen.kernels.norming.reference import Norming, Part, normalized

__all__ = ["Norming", "Part", "normalized", "normed"]
