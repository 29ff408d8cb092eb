"""Samplers: how steps are turned into samples."""

from vargen.samplers.engine import check, check_ahead, decode
from vargen.samplers.settings import Sampling

__all__ = ["Sampling", "check", "check_ahead", "decode"]
