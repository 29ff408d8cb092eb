"""Samplers: how steps are turned into samples."""

from vargen.samplers.engine import decode
from vargen.samplers.settings import Sampling

__all__ = ["Sampling", "decode"]
