"""The diffusion head: a small denoiser per slot (MAR, arXiv 2406.11838)."""

from __future__ import annotations

import math
from typing import Annotated

import jax.numpy as jnp

from vargen.gaussian import Process
from vargen.heads.denoiser import Denoising
from vargen.heads.head import Sample
from vargen.heads.plain import check_steps, mean
from vargen.limits import AtLeast, OneOf


class Diffusion(Denoising):
    """p(content | hidden) by denoising: trained on noise prediction and the variational bound.

    The denoiser predicts the noise and the variance's interpolation; steps of sampling lie evenly among those of
    training.

    Attributes:
      schedule: "cosine" (arXiv 2102.09672) or "linear" (arXiv 2006.11239).
      clip: in sampling, keeps the predicted content within [-clip, clip]; 0 leaves it, as the authors do. At the
        first step it is 2e4 times the error of the noise, which a briefly trained denoiser does not recover from.
    """

    schedule: Annotated[str, OneOf("cosine", "linear")] = "cosine"
    clip: Annotated[float, AtLeast(0)] = 0.0

    called = "diffusion"

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold codes, more steps of sampling than there are."""
        super().check(slot)
        check_steps(self.sample_steps, self.train_steps)

    def setup(self):
        super().setup()
        self.process = Process.make(self.schedule, self.train_steps)
        self.short = self.process.spaced(self.sample_steps)

    def loss(self, hidden, target, layout=None, weight=None, train: bool = True, quantizer=None, soft=None):
        """Mean of squared noise error plus variational bound in bits (eq. 2 of the paper; official code).

        Args:
          hidden: [B, N, D].
          target: latents [B, N, C].
          layout, train, quantizer, soft: unused here.
          weight: float32 [B, N], or None for ones.

        Returns:
          The loss, and metrics: mse and bound.
        """
        *cases, weight = self.cases(hidden, target, weight)
        mse, bound = (mean(term, weight) for term in self.terms(*cases))
        return mse + bound, {"mse": mse, "bound": bound}

    def terms(self, hidden, target, t, noise):
        """Both terms for given times and noises: [M, D], [M, C], int [M], [M, C] -> float32 [M], [M]."""
        x = self.process.diffuse(target, t, noise)
        eps, spread = jnp.split(self.denoiser(x, t, hidden), 2, axis=-1)
        return self.process.terms(eps, spread, target, x, t, noise)

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """Draws latents float32 [B, n, C] by the reverse process, see `Head.sample`.

        Guidance is on the predicted noise; the temperature is a factor on the noise that is added at every step.
        """
        shape, count = draws.shape, self.sample_steps + 1
        noise = draws.normal((count, self.channels))
        noise = jnp.moveaxis(noise, 2, 0).reshape(count, math.prod(shape), -1)
        flat = hidden.reshape(-1, hidden.shape[-1])
        x = self.denoise(noise[0], flat, noise[1:], guidance, settings.temperature)
        return Sample(x.reshape(*shape, self.channels), None)

    def denoise(self, x, hidden, noise, guidance=None, temperature=1.0):
        """The whole reverse process from given noise.

        Args:
          x: float32 [M, C], where it starts.
          hidden: [M, D], or with guidance [2M, D].
          noise: float32 [S, M, C], what each of the S steps adds.
          guidance, temperature: as in `sample`.
        """
        steps = jnp.arange(self.sample_steps)[::-1]

        def step(x, eps, spread, at):
            s, noise = at
            return self.short.reverse(x, s, eps, spread, noise, temperature, self.clip)

        return self.passes(step, x, hidden, jnp.asarray(self.short.times)[steps], (steps, noise), guidance)
