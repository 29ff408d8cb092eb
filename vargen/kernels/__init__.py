"""Primitives of the numerical core, each with an XLA form that is the truth for every other."""

from vargen.kernels.few_rows import Matrix, Onto, few_rows
from vargen.kernels.few_rows.reference import gated
from vargen.kernels.keeping import keeps_inputs
from vargen.kernels.linear_attention import linear_attention
from vargen.kernels.linear_scan import grid_scan, linear_scan
from vargen.kernels.norming import Norming, Part, normalized, normed
from vargen.kernels.selection import filter_logits, least_of_most
from vargen.kernels.step_attention import cached_attention, merge, placed, step_attention

__all__ = [
    "Matrix",
    "Norming",
    "Onto",
    "Part",
    "cached_attention",
    "few_rows",
    "filter_logits",
    "gated",
    "grid_scan",
    "keeps_inputs",
    "least_of_most",
    "linear_attention",
    "linear_scan",
    "merge",
    "normalized",
    "normed",
    "placed",
    "step_attention",
]
