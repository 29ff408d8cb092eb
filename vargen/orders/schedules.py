"""How many slots each step generates."""

from __future__ import annotations

import math

import numpy as np


def cosine_sizes(slots: int, steps: int) -> np.ndarray:
    """int [T]: slots per step under MaskGIT's cosine schedule, at least one each (MAR, arXiv 2406.11838).

    After step s (from 0) floor(N cos(pi/2 (s+1)/T)) slots remain; the last step takes whatever is left.
    """
    remaining, sizes = slots, []
    for s in range(steps):
        after = math.floor(slots * math.cos(math.pi / 2 * (s + 1) / steps)) if s < steps - 1 else 0
        after = min(remaining - 1, max(after, steps - 1 - s))
        sizes.append(remaining - after)
        remaining = after
    return np.asarray(sizes)
