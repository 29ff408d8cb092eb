"""Diagonal linear recurrences along one axis, and along the axes of a grid."""

from vargen.kernels.linear_scan.call import linear_scan
from vargen.kernels.linear_scan.grid import grid_scan

__all__ = ["grid_scan", "linear_scan"]
