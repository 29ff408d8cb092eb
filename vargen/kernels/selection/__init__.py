"""The least of the largest numbers that together weigh enough."""

from vargen.kernels.selection.call import least_of_most

__all__ = ["least_of_most"]
