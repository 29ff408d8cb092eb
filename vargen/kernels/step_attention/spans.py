"""From steps to spans: with keys sorted by step, every query sees one contiguous range of them.

`strict` and `window` end here: implementations know only `low[i] <= j < high[i]`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.kernels import static

# Flags of a visit: see `visits`.
FIRST, LAST, ACTIVE, PARTIAL = 1, 2, 4, 8


@dataclasses.dataclass(frozen=True)
class Spans:
    """What every query sees, among keys sorted by step.

    Attributes:
      low, high: int32 [N], NumPy where the steps are known before tracing, else [1 or B, N]: query i sees the
        keys low[i] <= j < high[i].
      q_order, k_order: the permutations [N], [M] or [B, N], [B, M] that sort queries and keys; None where they
        are sorted as they come.
    """

    low: Any
    high: Any
    q_order: Any = None
    k_order: Any = None

    @property
    def static(self) -> bool:
        """Whether the spans are known before tracing."""
        return static.known(self.low)


def spans(q_step, k_step, *, strict: bool, window: int | None, sorted_already: bool) -> Spans:
    """The spans of steps [N] or [B, N] among keys of steps [M] or [B, M].

    Queries are sorted too: blocks of them then see few blocks of keys.
    """
    q_order = None if sorted_already or q_step.shape[-1] == 1 else _order(q_step)
    k_order = None if sorted_already else _order(k_step)
    q_step, k_step = _take(q_step, q_order), _take(k_step, k_order)
    last = q_step - 1 if strict else q_step
    if static.known(q_step, k_step) and q_step.ndim == k_step.ndim == 1:
        high = np.searchsorted(k_step, last, side="right")
        low = np.zeros_like(high) if window is None else np.searchsorted(k_step, q_step - window, side="left")
        return Spans(np.minimum(low, high).astype(np.int32), high.astype(np.int32), q_order, k_order)

    def search(keys, values, side):
        find = lambda k, v: jnp.searchsorted(k, v, side=side, method="scan_unrolled")  # noqa: E731
        keys, values = jnp.asarray(keys), jnp.asarray(values)
        if keys.ndim == values.ndim == 1:
            return find(keys, values)[None]
        return jax.vmap(find, (0 if keys.ndim == 2 else None, 0 if values.ndim == 2 else None))(keys, values)

    high = search(k_step, last, "right").astype(jnp.int32)
    if window is None:
        return Spans(jnp.zeros_like(high), high, q_order, k_order)
    low = search(k_step, q_step - window, "left").astype(jnp.int32)
    return Spans(jnp.minimum(low, high), high, q_order, k_order)


def _order(steps):
    """The stable permutation that sorts; None where it is known to change nothing."""
    if not static.known(steps):
        return jnp.argsort(steps, axis=-1, stable=True)
    if np.all(np.diff(steps, axis=-1) >= 0):
        return None
    return np.argsort(steps, axis=-1, kind="stable")


def _take(steps, order):
    if order is None:
        return steps
    module = static.module(order)
    return module.take_along_axis(module.asarray(steps), order, axis=-1)


def arrange(x, order, *, back: bool = False):
    """x [B, N, ...] with its rows in the given order [N] or [B, N], or (`back`) from that order again."""
    if order is None:
        return x
    if back:
        order = order.argsort(axis=-1)
    if order.ndim == 1:
        return jnp.take(x, order, axis=1)
    return jax.vmap(lambda x, o: jnp.take(x, o, axis=0))(x, order)


def edges(low, high, q_block: int, k_block: int, k_blocks: int, *, of_keys: bool = False):
    """Which blocks meet which: int32 [..., blocks, 4].

    For every block of queries the blocks of keys start <= j < stop that some query of it sees, and among them
    full_start <= j < full_stop, of which all its queries see all keys. With `of_keys` the same for every block
    of keys among the blocks of queries.

    Args:
      low, high: int [..., N], N a multiple of q_block, both non-decreasing where N > q_block but for padding
        queries at the end (empty spans); NumPy or jnp.
      q_block, k_block: block sizes.
      k_blocks: number of blocks of keys.
    """
    module = static.module(low)
    low, high = (x.reshape(*x.shape[:-1], -1, q_block) for x in (low, high))
    empty = low >= high
    first = module.where(empty, k_blocks * k_block, low).min(-1)
    last = module.where(empty, 0, high).max(-1)
    starts = module.arange(k_blocks) * k_block
    seen = (first[..., None] < starts + k_block) & (last[..., None] > starts)
    # A block whose queries see nothing at all has first > last.
    full = (low.max(-1)[..., None] <= starts) & (high.min(-1)[..., None] >= starts + k_block)
    if of_keys:
        seen, full = module.swapaxes(seen, -1, -2), module.swapaxes(full, -1, -2)
    full = full & seen
    start, stop = _run(module, seen)
    full_start, full_stop = _run(module, full)
    # Without a full block the middle is empty, at the end.
    none = full_start >= full_stop
    full_start, full_stop = module.where(none, stop, full_start), module.where(none, stop, full_stop)
    return module.stack([start, full_start, full_stop, stop], axis=-1).astype(np.int32)


def _run(module, mask):
    """Where the true part of mask [..., n] begins and ends (0, 0 where there is none)."""
    some = mask.any(-1)
    start = mask.argmax(-1)
    stop = mask.shape[-1] - module.flip(mask, axis=-1).argmax(-1)
    return module.where(some, start, 0), module.where(some, stop, 0)


def visits(edges, most: int | None = None):
    """The pairs of blocks to visit in one walk, those of a row of `edges` [R, 4] one after another.

    A row without a block still gets one visit, which computes nothing: its result has to be written.

    Returns:
      int32 [3, P]: row, column, and flags (FIRST, LAST of its row; ACTIVE; PARTIAL: needs the mask). With
      NumPy edges P is the number of visits; else `most`, and what is beyond repeats the last visit, inactive.
    """
    module = static.module(edges)
    start, full_start, full_stop, stop = (edges[:, i] for i in range(4))
    count = module.maximum(stop - start, 1)
    ends = module.cumsum(count)
    total = ends[-1]
    index = np.arange(int(total)) if module is np else jnp.arange(most)
    row = module.minimum(module.searchsorted(ends, index, side="right"), len(edges) - 1)
    column = start[row] + module.minimum(index, total - 1) - (ends - count)[row]
    inside = index < total
    active = inside & (stop > start)[row]
    partial = ~((column >= full_start[row]) & (column < full_stop[row]))
    first, last = inside & (column == start[row]), inside & (index == ends[row] - 1)
    flags = first * FIRST + last * LAST + active * ACTIVE + (active & partial) * PARTIAL
    return module.stack([row, column, flags]).astype(np.int32)
