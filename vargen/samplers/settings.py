"""The knobs of sampling, and the schedules of classifier-free guidance."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import limits, schema

FIELDS = limits.fields(schema.Sampling)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampling:
    """Settings of one call; numbers that may change without a new compilation are pytree leaves.

    Attributes:
      guidance: scale of classifier-free guidance (arXiv 2207.12598): w in u + w (c - u); for the schedule
        "ramp" its own t.
      temperature: divides logits, or multiplies the diffusion head's noise.
      top_p: mass of the nucleus; only looked at where `nucleus`.
      guided: whether there is guidance at all (static).
      nucleus: whether top_p filters (static).
      guidance_schedule: "constant"; "linear", from `guidance_start` by the share of slots that are known after
        the step, one fewer in the last (MAR, official code), "linear_after" without that exception (ARPG, official
        code), "linear_before" by the share before the step (RandAR, official code); "cosine",
        1 + (w - 1)(1 - cos(pi (s/T)^power))/2 (RAR, arXiv 2411.00776); "ramp",
        1 + t s/(T - 1) (VAR, official code).
      guidance_start: where the linear schedules start.
      guidance_power: power of "cosine".
      guidance_steps: steps with guidance, counted from the first; 0 means all.
      guidance_rise: steps after which "ramp" reaches 1 + t, and goes on: T - 1 of the formula is at most that; 0 for no
        limit (FlexVAR, official code, has 9).
      guidance_side: steps of more slots than a square of this side have 1 + t of "ramp"; 0 for none (FlexVAR: 16).
      top_k: codes kept; 0 keeps all.
      steps: steps of generation, where the order leaves a choice; 0 takes the order's own.
      random_sides: where there are any, steps whose slots would make no square of one of these sides take the likeliest
        codes (FlexVAR, official code).
    """

    guidance: Any = 1.0
    temperature: Any = 1.0
    top_p: Any = 1.0
    guided: bool = dataclasses.field(default=False, metadata={"static": True})
    nucleus: bool = dataclasses.field(default=False, metadata={"static": True})
    guidance_schedule: str = dataclasses.field(default="constant", metadata={"static": True})
    guidance_start: float = dataclasses.field(default=1.0, metadata={"static": True})
    guidance_power: float = dataclasses.field(default=1.0, metadata={"static": True})
    guidance_steps: int = dataclasses.field(default=0, metadata={"static": True})
    guidance_rise: int = dataclasses.field(default=0, metadata={"static": True})
    guidance_side: int = dataclasses.field(default=0, metadata={"static": True})
    top_k: int = dataclasses.field(default=0, metadata={"static": True})
    steps: int = dataclasses.field(default=0, metadata={"static": True})
    random_sides: tuple[int, ...] = dataclasses.field(default=(), metadata={"static": True})

    @classmethod
    def make(cls, **options) -> Sampling:
        """From plain numbers (a config's `sampling`); its `levels` are those of the generator that draws, no setting.

        Raises:
          UserError: an unknown option or a value out of range.
        """
        limits.check(FIELDS, options, "sampling.")
        s = cls(**{k: v for k, v in options.items() if k != "levels"})
        neutral = 0.0 if s.guidance_schedule == "ramp" else 1.0
        return dataclasses.replace(
            s,
            guided=(float(s.guidance), s._first) != (neutral, 1.0),
            nucleus=float(s.top_p) < 1.0,
            guidance=float(s.guidance),
            temperature=float(s.temperature),
            top_p=float(s.top_p),
            random_sides=tuple(s.random_sides),
        )

    def of_step(self, slots: int) -> Sampling:
        """The settings of a step of so many slots."""
        if not self.random_sides or round(slots**0.5) in self.random_sides:
            return self
        return dataclasses.replace(self, top_k=1)

    @property
    def _first(self) -> float:
        """Where the schedule starts."""
        return self.guidance_start if self.guidance_schedule.startswith("linear") else 1.0

    def scales(self, sizes: np.ndarray) -> jax.Array:
        """float32 [T]: the guidance scale of each step, for steps of `sizes` [T] slots."""
        steps, known = len(sizes), np.cumsum(sizes)
        s = np.arange(steps)
        if self.guidance_schedule == "ramp":
            last = min(max(steps - 1, 1), self.guidance_rise or steps)
            side = self.guidance_side or np.inf
            share = np.where(np.sqrt(sizes) <= side, s / last, 1.0)
            scale = 1.0 + self.guidance * jnp.asarray(share, jnp.float32)
        else:
            share = {
                "constant": np.ones(steps),
                # The official code counts one slot as unknown in the last step.
                "linear": np.minimum(known, known[-1] - 1) / known[-1],
                "linear_after": known / known[-1],
                "linear_before": (known - sizes) / known[-1],
                "cosine": (1 - np.cos(np.pi * (s / steps) ** self.guidance_power)) / 2,
            }[self.guidance_schedule]
            scale = self._first + (self.guidance - self._first) * jnp.asarray(share, jnp.float32)
        return jnp.where(s < (self.guidance_steps or steps), scale, 1.0)
