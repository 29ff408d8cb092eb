"""The velocity head: predicts where a step's draft flows (flow matching, arXiv 2210.02747; xAR, arXiv 2502.20388)."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from vargen.content import Noised
from vargen.heads.head import Sample
from vargen.heads.joint import Joint, of_steps
from vargen.limits import Between, OneOf


class Velocity(Joint):
    """Trained on v = noise - content at x = (1 - t) content + t noise, with a time t of its own for each step of the
    order, the logistic function of a normal number.

    Attributes:
      sample_steps: P, passes for a step.
      solver: "euler": of dx = v dt, at times evenly from 1 to 0; "sde": of the reverse process that has noise of
        variance 2 t (Euler-Maruyama), at times evenly from 1 to `last`, and from there to 0 without noise.
      last: where "sde" ends.
    """

    sample_steps: Annotated[int, Between(1, 10**5)] = 50
    solver: Annotated[str, OneOf("sde", "euler")] = "sde"
    last: Annotated[float, Between(0, 1, above=True, below=True)] = 0.04

    called = "velocity"

    @property
    def times(self) -> np.ndarray:
        """float64 [P + 1], from 1 to 0."""
        if self.solver == "euler":
            return np.linspace(1, 0, self.sample_steps + 1)
        return np.append(np.linspace(1, self.last, self.sample_steps), 0.0)

    @property
    def noise_levels(self) -> np.ndarray:
        """float32 [P]: thousandths, cut to whole ones."""
        return np.floor(np.float32(1000) * self.times[:-1].astype(np.float32))

    def noised(self, content, steps) -> Noised:
        """Contents [B, N, C] at times drawn; see `JointHead.noised`."""
        key_time, key_noise = jax.random.split(self.make_rng("head"))
        times = of_steps(lambda k, s: jax.nn.sigmoid(jax.random.normal(k, s)), key_time, len(content), steps)
        return self.at(content, times, jax.random.normal(key_noise, content.shape))

    def at(self, content, times, noise) -> Noised:
        """Contents float32 [B, N, C] at times float32 [B, N] with the given noise [B, N, C]."""
        t = times[..., None]
        return Noised(content, (1 - t) * content + t * noise, jnp.floor(1000 * times), noise - content)

    def start(self, draws, settings) -> Sample:
        """Noise, times the temperature; the memory is that of all passes, as is their noise."""
        count = self.sample_steps if self.solver == "sde" else 1
        noise = settings.temperature * draws.normal((count, self.channels))
        return Sample(noise[..., 0, :], None, noise[..., 1:, :])

    def refine(self, hidden, draft, at, settings, guidance=None) -> Sample:
        """One step of the solver, see `JointHead.refine`; guidance is on the velocity."""
        t, after = (jnp.asarray(x, jnp.float32)[at] for x in (self.times[:-1], self.times[1:]))
        x, v = draft.content, self.guided(hidden, guidance)
        if self.solver == "euler":
            return draft._replace(content=x + (after - t) * v)
        # The velocity, less half the noise's variance times the score -((1 - t) v + x) / t.
        x = x + (after - t) * ((2 - t) * v + x)
        if self.sample_steps > 1:
            added = jnp.take(draft.memory, jnp.minimum(at, self.sample_steps - 2), axis=-2)
            x = x + jnp.where(after > 0, jnp.sqrt(2 * t * (t - after)), 0.0) * added
        return draft._replace(content=x)
