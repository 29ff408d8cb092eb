"""NumPy while everything is known before tracing, jax.numpy from then on: the one place that chooses.

Kernels, which import nothing of vargen, have theirs: `kernels/static.py`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import content as contents

KNOWN = (int, float, np.ndarray, np.generic)


def known(*values: Any) -> bool:
    """Whether all values (None aside) are known before tracing."""
    return all(x is None or isinstance(x, KNOWN) for x in values)


def module(*values: Any) -> ModuleType:
    """numpy where all values are known, else jax.numpy."""
    return np if known(*values) else jnp


def take(table: Any, index: Any) -> Any:
    """table [..., M] at `index` [...] -> [..., *index.shape]."""
    return module(table, index).asarray(table)[..., index]


def pick(table: Any, index: Any) -> Any:
    """table [M] or [B, M] at `index` [n] or [B, n] -> [n] or [B, n]: of each example its own where both differ."""
    if table.ndim == index.ndim == 2:
        return module(table, index).take_along_axis(table, index, axis=-1)
    return take(table, index)


def spread(values: Any, slots: Any, size: int) -> Any:
    """`values` [m] or [B, m] put at `slots` int [m] or [B, m] of [size] or [B, size], zeros elsewhere."""
    both = module(values, slots)
    values, slots = both.broadcast_arrays(values, slots)
    found = both.zeros((*slots.shape[:-1], size), values.dtype)
    if known(found):
        np.put_along_axis(found, slots, values, axis=-1)
        return found
    return jnp.put_along_axis(found, slots, values, axis=-1, inplace=False)


def where(condition: Any, a: Any, b: Any) -> Any:
    """Elementwise choice."""
    return module(condition, a, b).where(condition, a, b)


def pad(x: Any, widths: Any, value: Any = 0) -> Any:
    """x with so many entries of `value` put before and after along each of its last axes, [(before, after), ...]."""
    widths = [(0, 0)] * (x.ndim - len(widths)) + list(widths)
    return module(x).pad(x, widths, constant_values=value)


def arange(start: Any, size: int) -> Any:
    """int [size]: start, start + 1, ..."""
    return start + (np.arange(size) if known(start) else jnp.arange(size))


def append(rows: Any, new: Any, start: Any) -> Any:
    """rows [B, M, ...] with `new` [B, n, ...] from row `start` on, in their places; where they don't fit and the start
    is known, behind the rows before it (`samplers.engine` sees to it that with a traced one they do); with a start for
    each example, [B], those beyond the end are dropped."""
    if known(start) and start + new.shape[1] > rows.shape[1]:
        return jnp.concatenate([rows[:, :start], new], axis=1)
    if np.ndim(start):
        at = start[:, None] + np.arange(new.shape[1])
        return contents.put(rows, at, new.astype(rows.dtype))
    return jax.lax.dynamic_update_slice(rows, new.astype(rows.dtype), (0, start, *[0] * (rows.ndim - 2)))
