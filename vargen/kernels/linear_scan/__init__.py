"""Diagonal linear recurrences along one axis, and along the axes of a grid."""

from vargen.kernels.linear_scan.call import linear_scan

__all__ = ["linear_scan"]
