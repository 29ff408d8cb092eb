"""Comparisons with goldens: inputs, weights and outputs of the authors' own code, one module per family."""
