"""How many slots each step generates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

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


def cosine_ahead(slots: int, steps: int, known: int = 0) -> np.ndarray:
    """int [T]: one slot, then floor((1 - cos(pi/2 (s + 1)/T)) N + 1) in all after step s, at least one each.

    RandAR, arXiv 2412.01827, official code. Of the N slots `known` are there before the first step.
    """
    sizes = [1]
    while (done := known + sum(sizes)) < slots:
        target = min(int((1 - math.cos(math.pi / 2 * (len(sizes) + 1) / steps)) * slots + 1), slots)
        sizes.append(min(max(target - done, 1), slots - done))
    return np.asarray(sizes)


def check_steps(steps: int, slots: int, name: str = "sampling.steps") -> None:
    """Raises ValueError where there are no such steps of at least one slot each."""
    if not 1 <= steps <= slots:
        raise ValueError(f"{name}: expected 1 to {slots} (one slot a step), found {steps}")


SCHEDULES = {
    "cosine": cosine_sizes,
    "cosine_left": cosine_left,
    "arccos_left": arccos_left,
    "cosine_ahead": cosine_ahead,
}


class _Rounded:
    """NumPy's functions of float32 to the nearest float32, which its own are not on every machine."""

    def __getattr__(self, name: str) -> Callable:
        return lambda x: np.asarray(getattr(np, name)(np.asarray(x, np.float64)), np.float32)


HALF_TURN = np.float32(np.pi / 2)
# The share of N slots that is masked at a ratio r from 0 to 1, by functions of NumPy or of jax.numpy (MaskGIT, arXiv
# 2202.04200, section 3.3; arccos: MaskGIL, arXiv 2507.13032, official code).
CURVES: dict[str, Callable] = {
    "linear": lambda m, r, n: 1 - r,
    "square": lambda m, r, n: 1 - r**2,
    "cubic": lambda m, r, n: 1 - r**3,
    "root": lambda m, r, n: 1 - m.sqrt(r),
    "cosine": lambda m, r, n: m.cos(HALF_TURN * r),
    "arccos": lambda m, r, n: m.arccos(r) / HALF_TURN,
    "log": lambda m, r, n: -m.log2(r) / m.log2(n),
    "exp": lambda m, r, n: 1 - m.exp2(-m.log2(n) * (1 - r)),
}


def share(curve: str, ratio: Any, slots: int, functions: Any = None) -> Any:
    """float32 [...], from 1e-6 to 1: the share of `slots` that is masked at ratios float32 [...].

    Args:
      curve: one of `CURVES`.
      ratio: from 0 to 1.
      slots: N.
      functions: jax.numpy for traced ratios; None: NumPy's, exact to the last digit.
    """
    if functions is None:
        ratio, functions = np.asarray(ratio, np.float32), _Rounded()
    with np.errstate(divide="ignore"):
        found = CURVES[curve](functions, ratio, np.float32(max(slots, 2)))
    return found.clip(np.float32(1e-6), np.float32(1))


def sizes_left(curve: str, slots: int, steps: int, skipped: int = 0) -> np.ndarray:
    """int [T - skipped]: floor(N share((s + 1)/T)) slots are left after step s, and one fewer than before.

    In float32, as MaskGIT's official code. The last slot stays until the last step, so that steps of none there may be.
    `skipped`: so many of the first steps are left out.
    """
    left, sizes = slots, []
    for s in range(skipped, steps - 1):
        ratio = np.float32(s + 1) / np.float32(steps)
        after = max(1, min(left - 1, int(np.float32(slots) * share(curve, ratio, slots))))
        sizes.append(left - after)
        left = after
    return np.asarray([*sizes, left])


def sizes_shared(curve: str, slots: int, steps: int, skipped: int = 0) -> np.ndarray:
    """int [T - skipped]: round(N v_s / sum v) slots in step s, v_s = share(1 - s/(T - 1)), and one at least; the last
    step takes what is left (MaskGIL, official code).

    `skipped`: so many of the first steps are left out, and the others share all slots.
    """
    ratios = np.linspace(1, 0, steps)[skipped:]
    weights = share(curve, ratios, slots).astype(np.float64)
    sizes = np.maximum(np.round(slots * weights / weights.sum()).astype(int), 1)
    sizes[-1] = slots - sizes[:-1].sum()
    while sizes[-1] < 1:  # nearly as many steps as slots
        largest = np.argmax(sizes)
        sizes[[largest, -1]] += [-1, 1]
    return sizes


COUNTS = {"left": sizes_left, "shares": sizes_shared}
