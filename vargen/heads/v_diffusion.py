"""Denoising by velocity, from a start that is noise alone, in deterministic steps (arXiv 2202.00512, 2305.08891)."""

from __future__ import annotations

import functools
import math
from typing import Annotated

import jax.numpy as jnp
import numpy as np

from vargen.heads.denoiser import Denoising
from vargen.heads.head import Sample
from vargen.heads.plain import check_steps, mean
from vargen.limits import SIZE, Between

BETAS = 0.00085, 0.012  # the first and the last variance of latent diffusion's process (arXiv 2112.10752)


def signal_shares(steps: int) -> np.ndarray:
    """float64 [S]: alpha_bar of latent diffusion's process, the last of them 0 (arXiv 2305.08891, algorithm 1).

    The square roots of variances rise evenly; those of alpha_bar are then moved and stretched, so that the first stays
    and the last is 0.
    """
    first, last = (math.sqrt(beta) for beta in BETAS)
    signal = np.sqrt(np.cumprod(1 - np.linspace(first, last, steps, dtype=np.float64) ** 2))
    if steps == 1:
        return np.zeros(1)
    return ((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])) ** 2


def trailing(steps: int, few: int) -> np.ndarray:
    """int [few]: times evenly spaced from the last one down (arXiv 2305.08891, section 3.3)."""
    return np.round(np.arange(steps, 0, -steps / few))[:few].astype(np.int64) - 1


class VDiffusion(Denoising):
    """p(content | hidden) by denoising: a small MLP per slot predicts v = sqrt(a) noise - sqrt(1 - a) content.

    a is alpha_bar (`signal_shares`). Sampling is DDIM's (arXiv 2010.02502) without noise in its steps, which are
    `trailing`.
    """

    width: Annotated[int, SIZE] = 1536
    repeat: Annotated[int, Between(1, 1024)] = 8

    called = "v_diffusion"
    outputs = 1

    @functools.cached_property
    def signal(self) -> np.ndarray:
        """alpha_bar, float64 [train_steps]."""
        return signal_shares(self.train_steps)

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold codes, more steps of sampling than there are."""
        super().check(slot)
        check_steps(self.sample_steps, self.train_steps)

    def loss(self, hidden, target, layout=None, weight=None, train: bool = True, quantizer=None, soft=None):
        """Mean squared error of the velocity; arguments as of `Diffusion.loss`.

        Returns:
          The loss, and metrics: none.
        """
        *cases, weight = self.cases(hidden, target, weight)
        return mean(self.errors(*cases), weight), {}

    def errors(self, hidden, target, t, noise):
        """Squared errors, means over channels: [M, D], [M, C], int [M], [M, C] -> float32 [M]."""
        signal, spread = (jnp.asarray(x, jnp.float32)[t][:, None] for x in _roots(self.signal))
        v = self.denoiser(signal * target + spread * noise, t, hidden)
        return jnp.mean((signal * noise - spread * target - v) ** 2, axis=-1)

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """Draws latents float32 [B, n, C], see `Head.sample`.

        Guidance is on the velocity; the temperature is a factor on the noise that it starts with.
        """
        start = settings.temperature * draws.normal((self.channels,))
        flat = hidden.reshape(-1, hidden.shape[-1])
        x = self.denoise(start.reshape(-1, self.channels), flat, guidance)
        return Sample(x.reshape(*draws.shape, self.channels), None)

    def denoise(self, x, hidden, guidance=None):
        """From noise float32 [M, C] to latents, by hidden [M, D], or with guidance [2M, D]."""
        times = trailing(self.train_steps, self.sample_steps)
        shares = np.append(self.signal[times], 1.0)
        now, then = (np.stack(_roots(a), axis=-1).astype(np.float32) for a in (shares[:-1], shares[1:]))

        def step(x, v, _, at):
            (signal, spread), (signal_then, spread_then) = at
            content, noise = signal * x - spread * v, signal * v + spread * x
            return signal_then * content + spread_then * noise

        return self.passes(step, x, hidden, jnp.asarray(times), (now, then), guidance)


def _roots(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the content and of the noise."""
    return np.sqrt(shares), np.sqrt(1 - shares)
