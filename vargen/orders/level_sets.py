"""Random sets of slots, level by level (Hi-MAR, arXiv 2505.20288)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.limits import Between, OneOf
from vargen.orders.drawn import masked_share, random_slots
from vargen.orders.order import Order, Plain
from vargen.orders.schedules import check_steps, cosine_sizes
from vargen.slots import Grid

RATIOS = ("normal", "cosine")


@dataclasses.dataclass(frozen=True)
class LevelSets(Plain):
    """Each level in random sets by a cosine schedule, one level after another.

    In training every level has some slots known and the rest predicted: steps are 2k of those of level k that are
    known, and 2k + 1 of its others. Masked shares are drawn per example and level.

    Attributes:
      grid: the slots.
      steps: of each level.
      ratios: how each level's masked share is drawn in training: "normal", as of `RandomSets`; "cosine", cos(pi u / 2)
        of an even u (MaskGIT).
      mask_ratio_min: the least masked share of "normal".
    """

    grid: Grid
    steps: tuple[int, ...]
    ratios: tuple[str, ...]
    mask_ratio_min: float
    random: bool = True
    random_decoding: bool = True
    masked: bool = True
    by_level: bool = True

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """Slots, steps [B, N]; the level of each, int [N]."""
        batch = len(content)
        slots: Any = []
        steps: Any = []
        for level, n in enumerate(self.grid.level_sizes):
            key, key_slots, key_ratio = jax.random.split(key, 3)
            if self.ratios[level] == "normal":
                share = masked_share(key_ratio, batch, self.mask_ratio_min)
            else:
                share = jnp.cos(jnp.pi / 2 * jax.random.uniform(key_ratio, (batch, 1)))
            masked = jnp.clip(jnp.ceil(n * share), 1, n).astype(jnp.int32)
            slots.append(self._slots(key_slots, batch, level))
            steps.append(2 * level + (jnp.arange(n) >= n - masked))
        slots, steps = (jnp.concatenate(x, axis=1).astype(jnp.int32) for x in (slots, steps))
        return Order(slots, steps, segments=self.grid.coords[:, 0])

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """Slots [B, N] at random within each level; `steps` are those of the last level."""
        sizes = self.grid.level_sizes
        counts = (*self.steps[:-1], steps or self.steps[-1])
        check_steps(counts[-1], sizes[-1])
        keys = jax.random.split(key, len(sizes))
        slots = jnp.concatenate([self._slots(keys[i], batch, i) for i in range(len(sizes))], axis=1)
        known = np.zeros(self.grid.size, bool) if given is None else np.asarray(given)
        slots = jnp.take_along_axis(
            slots, jnp.argsort(~jnp.asarray(known)[slots], axis=-1, stable=True), axis=-1
        )
        first = [int(x.sum()) for x in np.split(known, self.grid.level_starts[1:])]
        cut = [(level, n) for level, n in enumerate(first) if n]
        for level, (n, count) in enumerate(zip(np.subtract(sizes, first), counts, strict=True)):
            cut += [(level, s) for s in (cosine_sizes(int(n), min(count, int(n))) if n else ())]
        levels, counts = np.array(cut, int).T
        return Order(
            slots, np.repeat(np.arange(len(cut)), counts), sum(first), segments=np.repeat(levels, counts)
        )

    def _slots(self, key: Any, batch: int, level: int) -> jax.Array:
        """int32 [B, n]: a permutation of a level's slots for every example."""
        return self.grid.level_starts[level] + random_slots(Grid((self.grid.levels[level],)), key, batch)


def level_sets(
    grid: Grid,
    steps: Annotated[tuple[int, ...], Between(1, 10**6)],
    ratios: Annotated[tuple[str, ...], OneOf(*RATIOS)] = ("normal", "cosine"),
    mask_ratio_min: Annotated[float, Between(0, 1, above=True)] = 0.7,
) -> LevelSets:
    """The part "level_sets".

    Raises:
      ValueError: not one of each for every level; more steps than a level has slots.
    """
    for name, found in (("steps", steps), ("ratios", ratios)):
        if len(found) != len(grid.levels):
            raise ValueError(
                f"config field order.{name}: expected one for each of {len(grid.levels)} levels, found {len(found)}"
            )
    for count, n in zip(steps, grid.level_sizes, strict=True):
        check_steps(count, n, "config field order.steps")
    return LevelSets(grid, steps, ratios, mask_ratio_min)
