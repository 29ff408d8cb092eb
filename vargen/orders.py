"""Orders of generation: which slots are predicted together, and in what sequence.

An order is data. Everything downstream (visibility in attention, positions, cache layout, the decode loop)
is derived from it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.limits import SHARE, Between


@dataclasses.dataclass(frozen=True)
class Grid:
    """The slots of a tokenizer and where they lie.

    Slots are numbered level by level (coarse to fine), frame by frame, row by row: the canonical layout.

    Attributes:
      levels: (height, width) of each level, coarse to fine; one level for a plain grid.
      frames: frames per level.
    """

    levels: tuple[tuple[int, int], ...]
    frames: int = 1

    @functools.cached_property
    def level_sizes(self) -> tuple[int, ...]:
        """Slots per level."""
        return tuple(self.frames * h * w for h, w in self.levels)

    @functools.cached_property
    def level_starts(self) -> tuple[int, ...]:
        """The first slot of each level."""
        return tuple(int(x) for x in np.cumsum((0, *self.level_sizes))[:-1])

    @property
    def size(self) -> int:
        """N, the number of slots."""
        return sum(self.level_sizes)

    @functools.cached_property
    def coords(self) -> np.ndarray:
        """int32 [N, 4]: level, frame, row and column of every slot."""
        rows = []
        for level, (h, w) in enumerate(self.levels):
            index = np.indices((self.frames, h, w)).reshape(3, -1).T
            rows.append(np.concatenate([np.full((len(index), 1), level), index], axis=1))
        return np.concatenate(rows).astype(np.int32)

    @property
    def places(self) -> np.ndarray:
        """int32 [N, A]: where every slot lies within its level: ([frame,] row, column)."""
        return self.coords[:, 2:] if self.frames == 1 else self.coords[:, 1:]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Order:
    """A sequence of slots and the step at which each is generated.

    Attributes:
      slots: int32 [N] or, where examples differ, [B, N]: the i-th slot in generation sequence.
      steps: int32 [N] or [B, N], non-decreasing: the step of the i-th slot. A NumPy array where it is known
        before tracing, as decoding requires.
    """

    slots: Any
    steps: Any

    @property
    def sizes(self) -> np.ndarray:
        """int [T]: slots generated per step (static orders only)."""
        return np.bincount(np.asarray(self.steps))

    @property
    def starts(self) -> np.ndarray:
        """int [T]: position in the sequence at which each step starts (static orders only)."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]])


def raster(grid: Grid) -> Order:
    """One slot per step, in the canonical layout (for a plain grid: row by row)."""
    return Order(np.arange(grid.size), np.arange(grid.size))


def levels(grid: Grid) -> Order:
    """Next-scale prediction (VAR, arXiv 2404.02905): all slots of a level in one step, coarse to fine."""
    return Order(np.arange(grid.size), grid.coords[:, 0])


def frames(grid: Grid) -> Order:
    """All slots of a frame in one step, frame after frame (single-level grids)."""
    return Order(np.arange(grid.size), grid.coords[:, 1])


def random_slots(grid: Grid, key: jax.Array, batch: int) -> jax.Array:
    """int32 [B, N]: an independent random permutation of the slots for every example."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(batch))
    return jax.vmap(lambda k: jax.random.permutation(k, grid.size))(keys)


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


@dataclasses.dataclass(frozen=True)
class Fixed:
    """An order that is the same for every example: `raster` or `levels`.

    Attributes:
      order: the order itself.
      random: False; whether examples have different orders in training.
      random_decoding: False; whether they have in generation.
    """

    order: Order
    random: bool = False
    random_decoding: bool = False

    def training(self, key: jax.Array | None, batch: int, progress: Any = None) -> Order:
        """The order of a training pass: what is predicted from what."""
        del key, batch, progress
        return self.order

    def decoding(self, key: jax.Array | None, batch: int, steps: int = 0) -> Order:
        """The order of generation; `steps` must be 0 or the order's own number of steps."""
        del key, batch
        found = len(self.order.sizes)
        if steps not in (0, found):
            raise ValueError(f"sampling.steps: this order has {found} steps, found {steps}")
        return self.order


@dataclasses.dataclass(frozen=True)
class RandomSets:
    """Random sets of slots (MAR, arXiv 2406.11838): a random sequence, cut by a cosine schedule.

    In training the first slots of the sequence are known and the rest predicted; the masked ratio is drawn
    per example from a Gaussian around 1 with deviation 0.25, cut to [mask_ratio_min, 1].

    Attributes:
      grid: the slots.
      steps: steps of generation unless the sampling settings name another number.
      mask_ratio_min: the least masked ratio in training.
      random, random_decoding: True.
    """

    grid: Grid
    steps: int
    mask_ratio_min: float = 0.7
    random: bool = True
    random_decoding: bool = True

    @property
    def most_known(self) -> int:
        """The most slots that can be known in a training pass."""
        return self.grid.size - math.ceil(self.grid.size * self.mask_ratio_min)

    def training(self, key: jax.Array, batch: int, progress: Any = None) -> Order:
        """Slots [B, N]; steps [B, N] are 0 where known and 1 where predicted."""
        del progress
        key_slots, key_ratio = jax.random.split(key)
        n = self.grid.size
        low = (self.mask_ratio_min - 1.0) / 0.25
        ratio = 1.0 + 0.25 * jax.random.truncated_normal(key_ratio, low, 0.0, (batch, 1))
        known = n - jnp.ceil(n * ratio).astype(jnp.int32)
        return Order(random_slots(self.grid, key_slots, batch), (jnp.arange(n) >= known).astype(jnp.int32))

    def decoding(self, key: jax.Array, batch: int, steps: int = 0) -> Order:
        """Slots [B, N] at random; steps [N] by the cosine schedule."""
        steps = steps or self.steps
        if not 1 <= steps <= self.grid.size:
            raise ValueError(
                f"sampling.steps: expected 1 to {self.grid.size} (one slot a step), found {steps}"
            )
        sizes = cosine_sizes(self.grid.size, steps)
        return Order(random_slots(self.grid, key, batch), np.repeat(np.arange(steps), sizes))


@dataclasses.dataclass(frozen=True)
class RandomToRaster:
    """Random sequences in training that become the raster one (RAR, arXiv 2411.00776, section 3.3).

    An example's sequence is random with a probability that is 1 until the share `start` of the training, falls
    linearly to 0 at `end`, and stays there. Generation is in raster order.

    Attributes:
      grid: the slots.
      start, end: shares of the training, 0 to 1.
      random: True.
      random_decoding: False.
    """

    grid: Grid
    start: float
    end: float
    random: bool = True
    random_decoding: bool = False

    def training(self, key: jax.Array, batch: int, progress: Any = None) -> Order:
        """Slots [B, N], one a step; `progress` is the share that is done, None the end: the slots of generation."""
        n = self.grid.size
        if progress is None:
            return raster(self.grid)
        share = (self.end - progress) / max(self.end - self.start, 1e-9)
        key_slots, key_share = jax.random.split(key)
        shuffled = jax.random.uniform(key_share, (batch, 1)) < share
        return Order(
            jnp.where(shuffled, random_slots(self.grid, key_slots, batch), np.arange(n)), np.arange(n)
        )

    def decoding(self, key: jax.Array | None, batch: int, steps: int = 0) -> Order:
        """The raster order; `steps` must be 0 or the number of slots."""
        return Fixed(raster(self.grid)).decoding(key, batch, steps)


def random_sets(
    grid: Grid,
    steps: Annotated[int, Between(1, 10**6)],
    mask_ratio_min: Annotated[float, Between(0, 1, above=True)] = 0.7,
) -> RandomSets:
    """The part "random_sets".

    Raises:
      ValueError: more steps than slots.
    """
    if steps > grid.size:
        raise ValueError(
            f"config field order.steps: expected 1 to {grid.size} (one slot a step), found {steps}"
        )
    return RandomSets(grid, steps, mask_ratio_min)


def random_to_raster(
    grid: Grid, start: Annotated[float, SHARE] = 0.5, end: Annotated[float, SHARE] = 0.75
) -> RandomToRaster:
    """The part "random_to_raster".

    Raises:
      ValueError: it ends before it starts.
    """
    if end < start:
        raise ValueError(f"config field order.end: expected at least start, {start}, found {end}")
    return RandomToRaster(grid, start, end)


ORDERS = {
    "raster": lambda grid: Fixed(raster(grid)),
    "frames": lambda grid: Fixed(frames(grid)),
    "levels": lambda grid: Fixed(levels(grid)),
    "random_to_raster": random_to_raster,
    "random_sets": random_sets,
}
