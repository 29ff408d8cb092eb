"""The epsilon head: predicts the noise in a step's draft, which a solver removes (ACDiT, arXiv 2412.07720)."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from vargen.content import Noised
from vargen.heads.dpm import Solver, linear_signal
from vargen.heads.head import Sample
from vargen.heads.joint import Joint, of_steps
from vargen.limits import AtLeast, Between

NOISE_LEVELS = 1000  # of the process, to which times are drawn in training


class Epsilon(Joint):
    """Trained on the noise of x = sqrt(a) content + sqrt(1 - a) noise, with a time of its own for each step of the
    order; sampled by DPM-Solver++ (arXiv 2211.01095) of the second order.

    Attributes:
      sample_steps: passes for a step.
      clip: in sampling, keeps the predicted content within [-clip, clip]; 0 leaves it, as the authors do. At the first
        pass it is 157 times the error of the noise, which a briefly trained network does not recover from.
    """

    sample_steps: Annotated[int, Between(1, NOISE_LEVELS - 1)] = 25
    clip: Annotated[float, AtLeast(0)] = 0.0

    called = "epsilon"

    @property
    def solver(self) -> Solver:
        """Of the passes."""
        return Solver.make(linear_signal(NOISE_LEVELS), self.sample_steps)

    @property
    def noise_levels(self) -> np.ndarray:
        """float32 [P]: the process's times."""
        return self.solver.times.astype(np.float32)

    def noised(self, content, steps) -> Noised:
        """Contents [B, N, C] at times drawn evenly; see `JointHead.noised`."""
        key_time, key_noise = jax.random.split(self.make_rng("head"))
        times = of_steps(
            lambda k, s: jax.random.randint(k, s, 0, NOISE_LEVELS), key_time, len(content), steps
        )
        return self.at(content, times, jax.random.normal(key_noise, content.shape))

    def at(self, content, times, noise) -> Noised:
        """Contents float32 [B, N, C] at times int [B, N] with the given noise [B, N, C]."""
        a = jnp.asarray(linear_signal(NOISE_LEVELS))[times][..., None]
        x = jnp.sqrt(a) * content + jnp.sqrt(1 - a) * noise
        return Noised(content, x, times.astype(jnp.float32), noise)

    def start(self, draws, settings) -> Sample:
        """Noise, times the temperature; the memory is the content that the pass before predicted."""
        x = settings.temperature * draws.normal((self.channels,))
        return Sample(x, None, jnp.zeros_like(x))

    def refine(self, hidden, draft, at, settings, guidance=None) -> Sample:
        """One step of the solver, see `JointHead.refine`; guidance is on the noise."""
        noise = self.guided(hidden, guidance)
        x, content = self.solver.step(draft.content, noise, at, draft.memory, self.clip)
        return Sample(x, None, content)
