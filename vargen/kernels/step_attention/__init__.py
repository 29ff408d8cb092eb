"""The one attention of every order: query i sees key j iff its step is not later."""

from vargen.kernels.step_attention.call import cached_attention, placed, step_attention
from vargen.kernels.step_attention.reference import merge

__all__ = ["cached_attention", "merge", "placed", "step_attention"]
