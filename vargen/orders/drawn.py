"""Orders that are drawn at random."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.limits import SHARE, Between, FineTuned, OneOf
from vargen.orders.fixed import Fixed, raster
from vargen.orders.order import Order, Plain, cut
from vargen.orders.schedules import SCHEDULES, check_steps, cosine_sizes
from vargen.slots import Grid


def random_slots(grid: Grid, key: Any, batch: int) -> jax.Array:
    """int32 [B, N]: an independent random permutation of the slots for every example."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(batch))
    return jax.vmap(lambda k: jax.random.permutation(k, grid.size))(keys)


def masked_share(key: Any, batch: int, least: float) -> jax.Array:
    """float32 [B, 1]: from a Gaussian around 1 with deviation 0.25, cut to [least, 1] (MAR, arXiv 2406.11838)."""
    return 1.0 + 0.25 * jax.random.truncated_normal(key, (least - 1.0) / 0.25, 0.0, (batch, 1))


def scheduled(
    grid: Grid, key: Any, batch: int, steps: int, given: np.ndarray | None, schedule: Callable
) -> Order:
    """Random sequences cut by a schedule, after a first step of the slots that are given, if there are any.

    Args:
      grid: the slots.
      key: PRNG key.
      batch: B.
      steps: T, of the slots that aren't given.
      given: bool [N], or None.
      schedule: (slots, steps) -> sizes of the steps.

    Raises:
      ValueError: no such number of steps.
    """
    check_steps(steps, grid.size)
    slots, known = random_slots(grid, key, batch), 0
    if given is not None:
        known = int(given.sum())
        later = jnp.argsort(jnp.asarray(~given)[slots], axis=-1, stable=True)
        slots = jnp.take_along_axis(slots, later, axis=-1)
    left = grid.size - known
    return cut(slots, known, schedule(left, min(steps, left)) if left else np.zeros(0, int))


@dataclasses.dataclass(frozen=True)
class RandomSets(Plain):
    """Random sets of slots (MAR, arXiv 2406.11838): a random sequence, cut by a cosine schedule.

    In training the first slots of the sequence are known and the rest predicted; the masked ratio is drawn
    per example from a Gaussian around 1 with deviation 0.25, cut to [mask_ratio_min, 1].

    Attributes:
      grid: the slots.
      steps: steps of generation unless the sampling settings name another number.
      mask_ratio_min: the least masked ratio in training.
    """

    grid: Grid
    steps: int
    mask_ratio_min: float = 0.7
    random: bool = True
    random_decoding: bool = True
    masked: bool = True

    @property
    def most_known(self) -> int:
        """The most slots that can be known in a training pass."""
        return self.grid.size - math.ceil(self.grid.size * self.mask_ratio_min)

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """Slots [B, N]; steps [B, N] are 0 where known and 1 where predicted."""
        key_slots, key_ratio = jax.random.split(key)
        n, batch = self.grid.size, len(content)
        known = n - jnp.ceil(n * masked_share(key_ratio, batch, self.mask_ratio_min)).astype(jnp.int32)
        return Order(random_slots(self.grid, key_slots, batch), (jnp.arange(n) >= known).astype(jnp.int32))

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """Slots [B, N] at random; steps [N] by the cosine schedule."""
        return scheduled(self.grid, key, batch, steps or self.steps, given, cosine_sizes)


@dataclasses.dataclass(frozen=True)
class Random(Plain):
    """A random sequence for every example: one slot a step in training, several in decoding (RandAR, ARPG).

    Attributes:
      grid: the slots.
      steps: steps of generation unless the sampling settings name another number.
      schedule: how many slots each has, one of `SCHEDULES`.
    """

    grid: Grid
    steps: int
    schedule: str
    random: bool = True
    random_decoding: bool = True

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """Slots [B, N], one a step."""
        return Order(random_slots(self.grid, key, len(content)), np.arange(self.grid.size))

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """Slots [B, N] at random; steps [N] by the schedule."""
        return scheduled(self.grid, key, batch, steps or self.steps, given, SCHEDULES[self.schedule])


@dataclasses.dataclass(frozen=True)
class RandomToRaster(Plain):
    """Random sequences in training that become the raster one (RAR, arXiv 2411.00776, section 3.3).

    An example's sequence is random with a probability that is 1 until the share `start` of the training, falls
    linearly to 0 at `end`, and stays there. Generation is in raster order.

    Attributes:
      grid: the slots.
      start, end: shares of the training, 0 to 1.
    """

    grid: Grid
    start: float
    end: float
    random: bool = True

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """Slots [B, N], one a step; `progress` is the share that is done, None the end: the slots of generation."""
        n, batch = self.grid.size, len(content)
        if progress is None:
            return raster(self.grid)
        share = (self.end - progress) / max(self.end - self.start, 1e-9)
        key_slots, key_share = jax.random.split(key)
        shuffled = jax.random.uniform(key_share, (batch, 1)) < share
        return Order(
            jnp.where(shuffled, random_slots(self.grid, key_slots, batch), np.arange(n)), np.arange(n)
        )

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """The raster order; `steps` must be 0 or the number of slots."""
        return Fixed(self.grid, raster(self.grid)).decoding(key, batch, steps, given)


def random_sets(
    grid: Grid,
    steps: Annotated[int, Between(1, 10**6)],
    mask_ratio_min: Annotated[float, Between(0, 1, above=True)] = 0.7,
) -> RandomSets:
    """The part "random_sets": random sets of slots by a cosine schedule (MAR, arXiv 2406.11838).

    Raises:
      ValueError: more steps than slots.
    """
    check_steps(steps, grid.size, "config field order.steps")
    return RandomSets(grid, steps, mask_ratio_min)


def random(
    grid: Grid,
    steps: Annotated[int, Between(0, 10**6)] = 0,
    schedule: Annotated[str, OneOf(*SCHEDULES)] = "cosine",
) -> Random:
    """The part "random": a random sequence for every example (RandAR, ARPG); 0 steps are as many as slots.

    Raises:
      ValueError: more steps than slots.
    """
    if steps > grid.size:
        raise ValueError(
            f"config field order.steps: expected at most {grid.size} (one slot a step), found {steps}"
        )
    return Random(grid, steps or grid.size, schedule)


def random_to_raster(
    grid: Grid,
    start: Annotated[float, SHARE, FineTuned(0.0)] = 0.5,
    end: Annotated[float, SHARE, FineTuned(0.0)] = 0.75,
) -> RandomToRaster:
    """The part "random_to_raster": random sequences that become the raster one (RAR, arXiv 2411.00776).

    A trained model has left the random orders behind.

    Raises:
      ValueError: it ends before it starts.
    """
    if end < start:
        raise ValueError(f"config field order.end: expected at least start, {start}, found {end}")
    return RandomToRaster(grid, start, end)
