"""How many slots each step generates."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def cosine_left(slots: int, steps: int) -> np.ndarray:
    """int [T]: the same curve, by what is left (ARPG, arXiv 2503.10568, official code); see `_by_left`."""
    return _by_left(slots, steps, lambda t: math.cos(math.pi * t / 2))


def arccos_left(slots: int, steps: int) -> np.ndarray:
    """int [T]: nearly even steps with a long last one (ARPG, official code): (2/pi) arccos(t) of the slots are left."""
    return _by_left(slots, steps, lambda t: math.acos(t) / (math.pi / 2))


def _by_left(slots: int, steps: int, curve: Callable[[float], float]) -> np.ndarray:
    """floor(N curve((s + 1)/T)) slots are left after step s, at least one slot fewer than before, until the last."""
    done, sizes = 0, []
    for s in range(steps - 1):
        left = max(1, min(slots - done - 1, int(slots * curve((s + 1) / steps))))
        sizes.append(slots - done - left)
        done = slots - left
    return np.asarray([*sizes, slots - done])


def cosine_ahead(slots: int, steps: int) -> np.ndarray:
    """int [T]: one slot, then floor((1 - cos(pi/2 (s + 1)/T)) N + 1) in all after step s, at least one each.

    RandAR, arXiv 2412.01827, official code.
    """
    sizes = [1]
    while (done := sum(sizes)) < slots:
        target = min(int((1 - math.cos(math.pi / 2 * (len(sizes) + 1) / steps)) * slots + 1), slots)
        sizes.append(min(max(target - done, 1), slots - done))
    return np.asarray(sizes)


SCHEDULES = {
    "cosine": cosine_sizes,
    "cosine_left": cosine_left,
    "arccos_left": arccos_left,
    "cosine_ahead": cosine_ahead,
}
