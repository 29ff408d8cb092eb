"""NumPy while arrays are known before tracing, as `vargen.static` chooses it: kernels import nothing of vargen."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np


def known(*arrays: Any) -> bool:
    """Whether all arrays are known before tracing."""
    return all(isinstance(x, np.ndarray) for x in arrays)


def module(*arrays: Any) -> ModuleType:
    """numpy where all arrays are known, else jax.numpy."""
    return np if known(*arrays) else jnp
