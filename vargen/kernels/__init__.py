"""Primitives of the numerical core, each with an XLA form that is the truth for every other."""

from vargen.kernels.linear_attention import linear_attention
from vargen.kernels.linear_scan import grid_scan, linear_scan
from vargen.kernels.selection import least_of_most
from vargen.kernels.step_attention import cached_attention, merge, step_attention

__all__ = [
    "cached_attention",
    "grid_scan",
    "least_of_most",
    "linear_attention",
    "linear_scan",
    "merge",
    "step_attention",
]
