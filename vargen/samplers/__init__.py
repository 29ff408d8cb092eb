"""Samplers: how steps are turned into samples."""

from vargen.samplers.engine import check, decode
from vargen.samplers.settings import Sampling

__all__ = ["Sampling", "check", "decode"]
