"""Linear attention with no, scalar or per-channel decay: one recurrence, in chunks."""

from vargen.kernels.linear_attention.call import linear_attention

__all__ = ["linear_attention"]
