"""DPM-Solver++ of the second order, multistep with the midpoint rule (arXiv 2211.01095), for noise prediction."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np


def linear_signal(steps: int) -> np.ndarray:
    """float32 [T]: the signal's share a of the variance, where betas rise evenly from 1e-4 to 0.02 (arXiv 2006.11239).

    In float32 throughout, as published programs have it: at the last times a digit shows.
    """
    betas = np.linspace(1e-4, 0.02, steps).astype(np.float32)
    return np.cumprod(np.float32(1) - betas, dtype=np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Solver:
    """The steps from noise to content: at times evenly spaced, of the first order at both ends.

    With sigma = sqrt((1 - a) / a) at each time and 0 at the end, c = 1 / sqrt(1 + sigma^2) and h the step of
    -log sigma, from x with the predicted noise

        content = x / c - sigma noise
        x' = (c' sigma' / c sigma) x - c' (e^-h - 1) (content + h / (2 h before) (content - content before))

    Attributes:
      times: int [P], falling.
      sigmas: float32 [P + 1].
    """

    times: np.ndarray
    sigmas: np.ndarray

    @classmethod
    def make(cls, signal: np.ndarray, steps: int) -> Solver:
        """For a process of `signal` float32 [T], in so many steps."""
        times = np.linspace(0, len(signal) - 1, steps + 1).round()[::-1][:-1].astype(np.int64)
        sigmas = np.sqrt((1 - signal.astype(np.float64)) / signal)[times]
        return cls(times, np.append(sigmas, 0.0).astype(np.float32))

    def __post_init__(self):
        sigma = self.sigmas.astype(np.float64)
        c = 1 / np.sqrt(1 + sigma**2)
        with np.errstate(divide="ignore"):
            h = -np.diff(np.log(sigma))  # the last is infinite
        towards = -c[1:] * np.expm1(-h)
        slope = np.zeros(len(h))
        slope[1:-1] = (h[1:] / h[:-1] / 2)[:-1]
        tables = {
            "scale": 1 / c[:-1],
            "noise": sigma[:-1],
            "keep": c[1:] * sigma[1:] / (c * sigma)[:-1],
            "towards": towards,
            "slope": towards * slope,
        }
        object.__setattr__(self, "_tables", {k: v.astype(np.float32) for k, v in tables.items()})

    def step(self, x, noise, at, before, clip: float = 0.0):
        """One step.

        Args:
          x: float32 [..., C], the draft.
          noise: float32 [..., C], as predicted for it.
          at: the step (int, or traced).
          before: float32 [..., C], the content that the step before predicted; anything for the first.
          clip: keeps the predicted content within [-clip, clip]; 0 leaves it.

        Returns:
          The next draft, and the predicted content.
        """
        scale, sigma, keep, towards, slope = (jnp.asarray(t)[at] for t in self._tables.values())
        content = scale * x - sigma * noise
        content = jnp.clip(content, -clip, clip) if clip else content
        return keep * x + towards * content + slope * (content - before), content
