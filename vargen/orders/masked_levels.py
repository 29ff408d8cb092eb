"""Levels that take several steps, in which the model draws again what it is least sure of (HMAR, arXiv 2506.04421)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.orders.order import Order, Plain, Proposes, cut
from vargen.slots import Grid


@dataclasses.dataclass(frozen=True)
class MaskedLevels(Plain):
    """Next-scale prediction, with steps inside a level.

    The first step of a level draws all of its slots and keeps those of which the model is surest: the likeliest in the
    law that they were drawn from, after temperature, top-k and top-p. Each further step draws the others again and
    keeps as many as it has. In training a part of every level but the first is masked, the same share of each level.

    Attributes:
      grid: the slots.
      schedule: of each level how many slots its steps keep.
    """

    grid: Grid
    schedule: tuple[tuple[int, ...], ...]
    random: bool = True
    random_decoding: bool = True
    masked: bool = True
    proposes: Proposes = "level"

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """Slots [B, N], level by level; steps [B, N] are 2 l for known slots of level l, and 2 l + 1 for masked ones.

        ceil(r n) of n slots are masked, r uniform for each example.
        """
        key_share, key_slots = jax.random.split(key)
        batch, level = len(content), self.grid.coords[:, 0]
        share = jax.random.uniform(key_share, (batch, 1))
        sizes = np.asarray(self.grid.level_sizes)
        counts = jnp.where(np.arange(len(sizes)) > 0, jnp.ceil(share * sizes), 0).astype(jnp.int32)
        slots = jnp.argsort(level + jax.random.uniform(key_slots, (batch, self.grid.size)), axis=-1)
        ends = np.asarray(self.grid.level_starts) + sizes
        masked = np.arange(self.grid.size) >= (ends - counts)[:, level]
        return Order(slots, 2 * level + masked.astype(jnp.int32))

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """Slots [N] until `revise` says more. `steps` must be 0 or the number that there is; given slots whole levels
        from the first on."""
        known = np.zeros(self.grid.size, bool) if given is None else np.asarray(given)
        count = int(known.sum())
        if not known[:count].all() or count not in (*self.grid.level_starts, self.grid.size):
            raise ValueError("given slots: expected whole levels, from the first one on, found others")
        order = self._order(count, np.zeros(self.grid.size, bool))
        if steps not in (0, len(order.sizes)):
            raise ValueError(f"sampling.steps: this order has {len(order.sizes)} steps, found {steps}")
        return order

    def scheduled(self, schedule: tuple[tuple[int, ...], ...]) -> MaskedLevels:
        """The same with other steps inside levels: any will do, whatever was trained.

        Raises:
          ValueError: steps that don't add up to the slots of each level, or more than one for the first level, in
            which nothing is ever masked in training.
        """
        sizes = self.grid.level_sizes
        if tuple(map(sum, schedule)) != sizes:
            raise ValueError(
                "sampling.schedule: expected steps of each level that add up to its slots, "
                f"{', '.join(map(str, sizes))}, found {schedule}"
            )
        if len(schedule[0]) > 1:
            raise ValueError(f"sampling.schedule: expected one step for the first level, found {schedule[0]}")
        return dataclasses.replace(self, schedule=schedule)

    def around(self, order: Order, kept: np.ndarray) -> Order:
        """Kept slots come first in their level, and are never masked: no more are than there are others."""
        return self._order(order.given, np.asarray(kept))

    def revise(self, order: Order, step: Any, slots: Any, sample: Any, draws: Any) -> jax.Array:
        """The log-probability of what was drawn, as it was drawn; see the class and `Ordering.revise`."""
        return sample.drawn

    def _order(self, given: int, kept: np.ndarray) -> Order:
        slots: list[np.ndarray] = []
        sizes: list[int] = []
        parts: list[int] = []
        for start, size, own in zip(
            self.grid.level_starts, self.grid.level_sizes, self.schedule, strict=True
        ):
            here = kept[start : start + size]
            slots.append(start + np.argsort(~here, stable=True))
            left = np.minimum(size - np.cumsum(own), size - here.sum())
            kept_by = -np.diff(np.concatenate([[size], left])) if start >= given else np.array([size])
            kept_by = kept_by[kept_by > 0]
            sizes.extend(kept_by.tolist())
            parts.append(len(kept_by))
        order = cut(np.concatenate(slots), 0, np.asarray(sizes))
        return dataclasses.replace(order, given=given, parts=tuple(parts))


def masked_levels(grid: Grid) -> MaskedLevels:
    """The part "masked_levels", see `MaskedLevels`: every level in one step, until a schedule says more."""
    return MaskedLevels(grid, tuple((size,) for size in grid.level_sizes))
