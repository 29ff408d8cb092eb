"""The least of the largest numbers that together weigh enough, and filters by it."""

from vargen.kernels.selection.call import filter_logits, least_of_most

__all__ = ["filter_logits", "least_of_most"]
