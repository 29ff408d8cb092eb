"""The order in which a model is sure of its slots, decided while decoding."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.limits import Above, AtLeast, Between, OneOf
from vargen.orders.order import Order, Plain, Proposes, cut
from vargen.orders.schedules import COUNTS, CURVES, check_steps, share
from vargen.slots import Grid


@dataclasses.dataclass(frozen=True)
class Confidence(Plain):
    """Every step draws all slots that are unknown, and keeps those of which the model is surest (MaskGIT, arXiv
    2202.04200, section 3.2).

    How sure: the log-probability of what was drawn, plus Gumbel noise times `noise`, which falls to 0 with the steps.
    By logits (TiTok, arXiv 2406.07550, official code): the logit over the step's softness, plus that noise; codes are
    then drawn at a temperature of the softness times the noise.
    In training a part of the slots is masked and predicted from the rest; the share is curve(r), r uniform.

    Attributes:
      grid: the slots.
      steps: T of generation unless the sampling settings name another number.
      curve: the share that is masked, one of `CURVES`.
      counts: how the curve says how many slots a step keeps, one of `COUNTS`.
      noise: of the choice (MaskGIT's choice temperature).
      anneal: the noise is times 1 - (s + 1)/T "after" step s = 0, 1, ... (MaskGIT), or 1 - s/(T - 1) "before" it
        (MaskGIL, arXiv 2507.13032, official code).
      skipped: of T steps the first ones that are left out where slots are given.
      masks: in training as many slots as the share says, rounded up ("counted") or to the nearest, one at least
        ("rounded"); or each with that probability ("independent").
      by: how sure: "probability", or "logit".
      softness: what logits are over, from the first number, before any step, to the second, in the last one.
    """

    grid: Grid
    steps: int
    curve: str = "cosine"
    counts: str = "left"
    noise: float = 4.5
    anneal: str = "after"
    skipped: int = 0
    masks: str = "counted"
    by: str = "probability"
    softness: tuple[float, float] = (1.0, 1.0)
    random: bool = True
    random_decoding: bool = True
    masked: bool = True
    proposes: Proposes = "rest"

    def training(self, key: Any, content: Any, progress: Any = None) -> Order:
        """Slots [B, N]; steps [B, N] are 0 where known and 1 where predicted."""
        key_share, key_slots = jax.random.split(key)
        n, batch = self.grid.size, len(content)
        masked = share(self.curve, jax.random.uniform(key_share, (batch, 1)), n, jnp)
        chance = jax.random.uniform(key_slots, (batch, n))
        if self.masks == "independent":
            count = jnp.sum(chance < masked, axis=-1, keepdims=True)
        else:
            whole = jnp.ceil if self.masks == "counted" else jnp.round
            count = jnp.maximum(whole(masked * n), 1).astype(jnp.int32)
        return Order(jnp.argsort(-chance, axis=-1), (jnp.arange(n) >= n - count).astype(jnp.int32))

    def decoding(self, key: Any, batch: int, steps: int = 0, given: np.ndarray | None = None) -> Order:
        """Slots [N], the given ones first, until `revise` says more; steps [N] by curve and counts."""
        steps, n = steps or self.steps, self.grid.size
        check_steps(steps, n)
        given = np.zeros(n, bool) if given is None else np.asarray(given)
        known = int(given.sum())
        skipped = self.skipped if known else 0
        if skipped >= steps:
            raise ValueError(
                f"sampling.steps: expected more than {skipped}, which are left out beside given slots, found {steps}"
            )
        sizes = np.zeros(0, int)
        if left := n - known:
            sizes = COUNTS[self.counts](self.curve, left, min(steps, left + skipped), skipped)
        return cut(np.argsort(~given, stable=True), known, sizes)

    def revise(self, order: Order, step: Any, slots: Any, sample: Any, draws: Any) -> jax.Array:
        """Log-probability, or logit, and noise, see the class and `Ordering.revise`."""
        sure = sample.score
        if self.by == "logit":
            sure = sample.logit / jnp.asarray(self.soft(order))[step]
        return sure + jnp.asarray(self.amounts(order))[step] * draws.gumbel()

    def temperature(self, order: Order, step: Any) -> jax.Array | None:
        """Of what goes by logits that of the noise, see the class and `Ordering.temperature`."""
        if self.by == "probability":
            return None
        return jnp.asarray(self.amounts(order) * self.soft(order))[step]

    def soft(self, order: Order) -> np.ndarray:
        """float32 [T]: what logits are over in each step of an order of `decoding`."""
        first, last = self.softness
        left = dataclasses.replace(self, noise=1.0, anneal="after").amounts(order)
        return (np.float32(last) + np.float32(first - last) * left).astype(np.float32)

    def amounts(self, order: Order) -> np.ndarray:
        """float32 [T]: the factor on the noise in each step of an order of `decoding`."""
        first = int(order.given > 0)
        skipped = self.skipped if first else 0
        s = np.arange(len(order.sizes), dtype=np.float32) - first + skipped
        steps = np.float32(len(s) - first + skipped)
        done = (s + 1) / steps if self.anneal == "after" else s / max(steps - 1, np.float32(1))
        return (np.float32(self.noise) * (1 - done)).astype(np.float32)


def confidence(
    grid: Grid,
    steps: Annotated[int, Between(1, 10**6)],
    curve: Annotated[str, OneOf(*CURVES)] = "cosine",
    counts: Annotated[str, OneOf(*COUNTS)] = "left",
    noise: Annotated[float, AtLeast(0)] = 4.5,
    anneal: Annotated[str, OneOf("after", "before")] = "after",
    skipped: Annotated[int, Between(0, 10**6)] = 0,
    masks: Annotated[str, OneOf("counted", "rounded", "independent")] = "counted",
    by: Annotated[str, OneOf("probability", "logit")] = "probability",
    softness: Annotated[tuple[float, float], Above(0)] = (1.0, 1.0),
) -> Confidence:
    """The part "confidence", see `Confidence`.

    Raises:
      ValueError: more steps than slots, or all of them left out.
    """
    check_steps(steps, grid.size, "config field order.steps")
    if skipped >= steps:
        raise ValueError(f"config field order.skipped: expected fewer than steps, {steps}, found {skipped}")
    return Confidence(
        grid, steps, curve, counts, noise, anneal, skipped, masks, by, (softness[0], softness[1])
    )
