"""The one attention of every order: query i sees key j iff its step is not later."""

from vargen.kernels.step_attention.call import merge, step_attention

__all__ = ["merge", "step_attention"]
