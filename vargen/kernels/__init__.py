"""Primitives of the numerical core, each with an XLA form that is the truth for every other."""
