"""Products of few rows with what stands before and behind them, a step of decoding."""

from vargen.kernels.few_rows.call import alone, are_few, are_tiled, few_rows
from vargen.kernels.few_rows.reference import Matrix, Onto

__all__ = ["Matrix", "Onto", "alone", "are_few", "are_tiled", "few_rows"]
