"""Orders in which a training pass has some of the levels alone, or some slots of the last one."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.limits import SHARE, Between
from vargen.orders.drawn import masked_share, random_slots
from vargen.orders.fixed import Fixed, levels
from vargen.orders.order import Order, Plain
from vargen.slots import Grid


@dataclasses.dataclass(frozen=True)
class SomeLevels(Plain):
    """Next-scale prediction over levels drawn anew for each update (FlexVAR, arXiv 2502.20313, official code).

    A set is the usual one with probability `usual_share`, else so many of each group, at random. Then up to four of it
    are left out with the probabilities `thinning`, none of them the first two or the last, and while it has more slots
    than `most` one of its last four. Examples of a batch have the same levels; a pass has `most` rows, of which those
    beyond the set's slots don't exist. Decoding has all levels of the grid.

    Attributes:
      grid: the slots, of all levels that may be drawn.
      groups: (count, first, last): so many of these levels, counted from 1.
      usual: a set of levels, counted from 1.
      usual_share: its probability.
      thinning: probabilities that at least one, two, ... levels are left out.
      most: slots of a set.
    """

    grid: Grid
    groups: tuple[tuple[int, int, int], ...]
    usual: tuple[int, ...]
    usual_share: float
    thinning: tuple[float, ...]
    most: int
    random: bool = True
    partial: bool = True

    def drawn(self, key: Any) -> jax.Array:
        """bool [L]: a set."""
        keys = jax.random.split(key, 5)
        count = len(self.grid.levels)
        chance = jax.random.uniform(keys[0], (count,))
        chosen = jnp.zeros(count, bool)
        for number, first, last in self.groups:
            levels_from_1 = np.arange(count) + 1
            inside = (levels_from_1 >= first) & (levels_from_1 <= last)
            chosen = chosen | (inside & (_rank(jnp.where(inside, chance, 2.0)) < number))
        if self.usual:
            usual = np.isin(np.arange(count) + 1, self.usual)
            chosen = jnp.where(jax.random.uniform(keys[1]) < self.usual_share, usual, chosen)
        out = (
            jnp.sum(jax.random.uniform(keys[2]) < np.asarray(self.thinning, np.float32))
            if self.thinning
            else 0
        )
        place, size = jnp.cumsum(chosen) - 1, jnp.sum(chosen)
        middle = chosen & (place >= 2) & (place < size - 1)
        chance = jnp.where(middle, jax.random.uniform(keys[3], (count,)), 2.0)
        chosen = chosen & ~(middle & (_rank(chance) < out))
        sizes = np.asarray(self.grid.level_sizes)

        def lighter(state):
            chosen, key = state
            key, own = jax.random.split(key)
            last = chosen & (jnp.cumsum(chosen[::-1])[::-1] <= 4)
            chance = jnp.where(last, jax.random.uniform(own, (count,)), 2.0)
            return chosen & (_rank(chance) != 0), key

        return jax.lax.while_loop(lambda s: jnp.sum(sizes * s[0]) > self.most, lighter, (chosen, keys[4]))[0]

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """Slots [M], steps [M] counted in levels that exist, `exists` [M]; M is `most`."""
        chosen = self.drawn(key)
        here = chosen[self.grid.coords[:, 0]]
        slots = jnp.argsort(~here, stable=True)[: self.most]
        steps = (jnp.cumsum(chosen) - 1)[self.grid.coords[:, 0]]
        exists = here[slots]
        return Order(slots, jnp.where(exists, steps[slots], jnp.sum(chosen)), exists=exists)

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """All levels of the grid, as of `levels`."""
        return Fixed(self.grid, levels(self.grid)).decoding(key, batch, steps, given)


def some_levels(
    grid: Grid,
    groups: Annotated[tuple[tuple[int, int, int], ...], Between(1, 4096)],
    usual: Annotated[tuple[int, ...], Between(1, 4096)] = (),
    usual_share: Annotated[float, SHARE] = 0.0,
    thinning: Annotated[tuple[float, ...], SHARE] = (),
    most: Annotated[int, Between(0, 2**24)] = 0,
) -> SomeLevels:
    """The part "some_levels": sets of levels, of which training draws one for each example (FlexVAR, arXiv 2502.20313);
    `most` 0: the slots of the largest set.

    Raises:
      ValueError: levels that the grid doesn't have, a group of fewer than are drawn of it, no level at all, room for
        less than the largest level that is always drawn.
    """
    count = len(grid.levels)
    for number, first, last in groups:
        if not first <= last <= count or number > last - first + 1:
            raise ValueError(
                f"config field order.groups: expected (count, first, last) among {count} levels, found "
                f"{(number, first, last)}"
            )
    if not groups:
        raise ValueError("config field order.groups: expected at least one group, found none")
    if outside := [x for x in usual if x > count]:
        raise ValueError(f"config field order.usual: expected levels from 1 to {count}, found {outside[0]}")
    sizes = np.asarray(grid.level_sizes)
    largest = max(
        sum(sum(sorted(sizes[a - 1 : b])[-n:]) for n, a, b in groups), sum(sizes[x - 1] for x in usual)
    )
    if most and most < sizes.max():
        raise ValueError(
            f"config field order.most: expected at least {sizes.max()}, a level's slots, found {most}"
        )
    return SomeLevels(grid, groups, usual, usual_share, thinning, int(min(most or largest, largest)))


@dataclasses.dataclass(frozen=True)
class ThinnedLevels(Plain):
    """Next-scale prediction, of whose last level a training pass has a few slots at random (HART, arXiv 2410.10812).

    The share that is left out is drawn for each example from a Gaussian around 1 with deviation 0.25, cut to
    [mask_ratio_min, 1]: 82 % on average where that is 0.5. A pass has as many rows as stay at most, of which the others
    don't exist. Decoding has all slots.

    Attributes:
      grid: the slots.
      mask_ratio_min: the least share.
      least: slots that stay at least.
    """

    grid: Grid
    mask_ratio_min: float
    least: int
    random: bool = True
    partial: bool = True
    thins: bool = True

    @property
    def most(self) -> int:
        """Slots of the last level that stay at most."""
        n = self.grid.level_sizes[-1]
        return max(n - math.ceil(n * self.mask_ratio_min), self.least)

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """Slots, steps and `exists` [B, M], level by level; M is the levels before the last, and `most`."""
        key_slots, key_share = jax.random.split(key)
        batch, first, n = len(content), self.grid.level_starts[-1], self.grid.level_sizes[-1]
        share = masked_share(key_share, batch, self.mask_ratio_min)
        stay = jnp.clip(n - jnp.ceil(n * share), self.least, self.most)
        last = random_slots(Grid(self.grid.levels[-1:]), key_slots, batch)[:, : self.most]
        exists = jnp.arange(self.most) < stay
        # In the canonical sequence, those that don't exist behind them.
        turn = jnp.argsort(last + n * ~exists, axis=-1)
        slots = first + jnp.take_along_axis(last, turn, axis=-1)
        before = np.broadcast_to(np.arange(first), (batch, first))
        slots = jnp.concatenate([before, slots], axis=-1).astype(jnp.int32)
        exists = jnp.pad(exists, ((0, 0), (first, 0)), constant_values=True)
        level = jnp.asarray(self.grid.coords[:, 0])[slots]
        return Order(slots, jnp.where(exists, level, len(self.grid.levels)), exists=exists)

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """All levels of the grid, as of `levels`."""
        return Fixed(self.grid, levels(self.grid)).decoding(key, batch, steps, given)


def thinned_levels(
    grid: Grid,
    mask_ratio_min: Annotated[float, Between(0, 1, below=True)] = 0.5,
    least: Annotated[int, Between(1, 2**24)] = 1,
) -> ThinnedLevels:
    """The part "thinned_levels": of the last level a training pass has a few slots at random; see `ThinnedLevels`.

    Raises:
      ValueError: more slots are to stay than the last level has.
    """
    if least > grid.level_sizes[-1]:
        raise ValueError(
            f"config field order.least: expected at most {grid.level_sizes[-1]}, the last level's slots, found {least}"
        )
    return ThinnedLevels(grid, mask_ratio_min, least)


def _rank(x: jax.Array) -> jax.Array:
    """int32 [L]: how many are smaller."""
    return jnp.argsort(jnp.argsort(x))
