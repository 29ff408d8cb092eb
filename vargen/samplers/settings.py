"""The knobs of sampling, and the schedules of classifier-free guidance."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import limits, schema
from vargen.slots import Slot

FIELDS = limits.fields(schema.Sampling)
OF_GENERATOR = "levels", "tokens"  # which say what is over how many slots, and are no settings of a call


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampling:
    """Settings of one call; numbers that may change without a new compilation are pytree leaves.

    Attributes:
      guidance: scale of classifier-free guidance (arXiv 2207.12598): w in u + w (c - u); for the schedule
        "ramp" its own t.
      temperature: divides logits, or multiplies the diffusion head's noise.
      top_p: mass of the nucleus; only looked at where `nucleus`; or one for each of a slot's codes.
      guided: whether there is guidance at all (static).
      nucleus: whether top_p filters (static).
      guidance_schedule: "constant"; "linear", from `guidance_start` by the share of slots that are known after
        the step, one fewer in the last (MAR, official code), "linear_after" without that exception (ARPG, official
        code), "linear_before" by the share before the step (RandAR, official code); "cosine",
        1 + (w - 1)(1 - cos(pi (s/T)^power))/2 (RAR, arXiv 2411.00776); "ramp",
        1 + t s/(T - 1) (VAR, official code).
      guidance_start: where the linear schedules start.
      guidance_power: power of "cosine".
      guidance_before: guidance of the levels before the last, of an order level by level; each level has a schedule of
        its own then. None: one schedule for all (static).
      guidance_steps: steps with guidance, counted from the first; 0 means all.
      guidance_rise: steps after which "ramp" reaches 1 + t, and goes on: T - 1 of the formula is at most that; 0 for no
        limit (FlexVAR, official code, has 9).
      guidance_side: steps of more slots than a square of this side have 1 + t of "ramp"; 0 for none (FlexVAR: 16).
      spatial_guidance: v in u' + w (c - u) + v (u - u'), where u' sees a share of what is given alone, of a larger
        picture (RandAR, official code); 1 for none.
      spatial_share: the share that u' doesn't see.
      spatial: whether there is such guidance (static).
      top_k: codes kept; 0 keeps all; or one for each of a slot's codes.
      steps: steps of generation, where the order leaves a choice; 0 takes the order's own.
      schedule: of each level how many slots its steps keep, where the order has steps inside levels; () takes one each.
      random_sides: where there are any, steps whose slots would make no square of one of these sides take the likeliest
        codes (FlexVAR, official code).
      policy: "scheduled", one step after another; "jacobi", see `samplers.jacobi`.
      lookahead: W, rows of a pass of "jacobi".
      guess: its first drafts: "random", any code; "left", the code to the left.
    """

    guidance: Any = 1.0
    temperature: Any = 1.0
    top_p: Any = 1.0
    guided: bool = dataclasses.field(default=False, metadata={"static": True})
    nucleus: bool = dataclasses.field(default=False, metadata={"static": True})
    spatial_guidance: Any = 1.0
    spatial: bool = dataclasses.field(default=False, metadata={"static": True})
    spatial_share: float = dataclasses.field(default=0.5, metadata={"static": True})
    guidance_schedule: str = dataclasses.field(default="constant", metadata={"static": True})
    guidance_start: Any = 1.0
    guidance_power: float = dataclasses.field(default=1.0, metadata={"static": True})
    guidance_before: tuple[float, ...] = dataclasses.field(default=(), metadata={"static": True})
    guidance_steps: int = dataclasses.field(default=0, metadata={"static": True})
    guidance_rise: int = dataclasses.field(default=0, metadata={"static": True})
    guidance_side: int = dataclasses.field(default=0, metadata={"static": True})
    top_k: int | tuple[int, ...] = dataclasses.field(default=0, metadata={"static": True})
    steps: int = dataclasses.field(default=0, metadata={"static": True})
    schedule: tuple[tuple[int, ...], ...] = dataclasses.field(default=(), metadata={"static": True})
    random_sides: tuple[int, ...] = dataclasses.field(default=(), metadata={"static": True})
    policy: str = dataclasses.field(default="scheduled", metadata={"static": True})
    lookahead: int = dataclasses.field(default=16, metadata={"static": True})
    guess: str = dataclasses.field(default="random", metadata={"static": True})

    @classmethod
    def make(cls, **options) -> Sampling:
        """From plain numbers (a config's `sampling`), but for those that say what a generator is over (`OF_GENERATOR`).

        Raises:
          UserError: an unknown option or a value out of range.
        """
        limits.check(FIELDS, options, "sampling.")
        options = {
            k: tuple(v) if isinstance(v, list) else v for k, v in options.items() if k not in OF_GENERATOR
        }
        s = cls(**options)
        each = s.top_p if isinstance(s.top_p, tuple) else (s.top_p,)
        neutral = 0.0 if s.guidance_schedule == "ramp" else 1.0
        return dataclasses.replace(
            s,
            guided=any((float(w), s._first) != (neutral, 1.0) for w in (s.guidance, *s.guidance_before)),
            nucleus=any(float(p) < 1.0 for p in each),
            guidance=float(s.guidance),
            guidance_start=float(s.guidance_start),
            spatial_guidance=float(s.spatial_guidance),
            spatial=float(s.spatial_guidance) != 1.0,
            temperature=float(s.temperature),
            top_p=tuple(map(float, each)) if isinstance(s.top_p, tuple) else float(s.top_p),
            guidance_before=tuple(map(float, s.guidance_before)),
            random_sides=tuple(s.random_sides),
            schedule=tuple(map(tuple, s.schedule)),
        )

    def ordering(self, ordering):
        """An `Ordering` with the schedule; raises ValueError for one that it can't have."""
        return ordering.scheduled(self.schedule) if self.schedule else ordering

    def check(self, slot: Slot) -> None:
        """Raises ValueError where there are filters for each code of a slot, and it holds another number of them."""
        codes = slot.shape[0] if slot.vocab and slot.shape else 0
        for name, value in (("top_k", self.top_k), ("top_p", self.top_p)):
            if isinstance(value, tuple) and len(value) != codes:
                more = f", or one for each of {codes} codes" if codes else ""
                raise ValueError(f"sampling.{name}: expected one number{more}, found {len(value)}")

    def of(self, code: int) -> Sampling:
        """The settings for one of the codes that a slot holds."""
        top_k, top_p = (x[code] if isinstance(x, tuple) else x for x in (self.top_k, self.top_p))
        return dataclasses.replace(self, top_k=top_k, top_p=top_p)

    def of_step(self, slots: int) -> Sampling:
        """The settings of a step of so many slots."""
        if not self.random_sides or round(slots**0.5) in self.random_sides:
            return self
        return dataclasses.replace(self, top_k=1)

    @property
    def _first(self) -> Any:
        """Where the schedule starts."""
        return self.guidance_start if self.guidance_schedule.startswith("linear") else 1.0

    def scales(
        self, sizes: np.ndarray, parts: tuple[int, ...] = (), levels: np.ndarray | None = None
    ) -> jax.Array:
        """float32 [T]: the guidance scale of each step.

        Args:
          sizes: int [T], slots of the steps.
          parts: as of `Order`. The schedule goes by parts then; steps after the first of a part have no guidance.
          levels: of each slot in sequence, int [N], of an order level by level; None for one.

        Raises:
          ValueError: guidance for another number of levels.
        """
        if parts:
            firsts = np.cumsum([0, *parts[:-1]])
            of_parts = self.scales(np.add.reduceat(sizes, firsts))
            return jnp.ones(len(sizes), jnp.float32).at[firsts].set(of_parts)
        if not self.guidance_before:
            return self._scales(sizes)
        each = (*self.guidance_before, self.guidance)
        of_steps = np.zeros(1, int) if levels is None else np.asarray(levels)[np.cumsum(sizes) - sizes]
        if (count := int(of_steps.max(initial=0)) + 1) != len(each):
            raise ValueError(
                f"sampling.guidance_before: expected one number for each level before the last, {count - 1}, found "
                f"{len(each) - 1}"
            )
        scales = jnp.zeros(len(sizes), jnp.float32)
        for level, scale in enumerate(each):
            own = np.flatnonzero(of_steps == level)
            scales = scales.at[own].set(dataclasses.replace(self, guidance=scale)._scales(sizes[own]))
        return scales

    def _scales(self, sizes: np.ndarray) -> jax.Array:
        """Those of one schedule over all steps."""
        if not len(sizes):
            return jnp.zeros(0, jnp.float32)
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
