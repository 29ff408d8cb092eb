"""Denoising by velocity, from a start that is noise alone, in deterministic steps (arXiv 2202.00512, 2305.08891)."""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.heads.diffusion import FEW, Denoiser
from vargen.heads.head import Sample
from vargen.limits import COUNT, SIZE, Between

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


class VDiffusion(nn.Module):
    """p(content | hidden) by denoising: a small MLP per slot predicts v = sqrt(a) noise - sqrt(1 - a) content.

    a is alpha_bar (`signal_shares`). Sampling is DDIM's (arXiv 2010.02502) without noise in its steps.

    Attributes:
      channels: C, the latents' channels.
      depth, width: of the denoiser.
      train_steps: steps of the process in training.
      sample_steps: steps of sampling (`trailing`).
      repeat: times and noises drawn per slot and training step.
      dtype: compute dtype of the denoiser.
    """

    channels: int
    depth: Annotated[int, COUNT] = 3
    width: Annotated[int, SIZE] = 1536
    train_steps: Annotated[int, Between(1, 10**5)] = 1000
    sample_steps: Annotated[int, Between(1, 10**5)] = 100
    repeat: Annotated[int, Between(1, 1024)] = 8
    dtype: Any = jnp.float32

    explicit = False
    enumerable = False
    each_stage = False
    levels = None
    shares = ()

    @functools.cached_property
    def signal(self) -> np.ndarray:
        """alpha_bar, float64 [train_steps]."""
        return signal_shares(self.train_steps)

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold codes, more steps of sampling than there are."""
        if slot.vocab:
            raise ValueError(f"head v_diffusion: expected a tokenizer of latents, found slots of {slot}")
        if self.sample_steps > self.train_steps:
            raise ValueError(
                f"head.sample_steps: expected 1 to {self.train_steps}, found {self.sample_steps}"
            )

    def setup(self):
        self.denoiser = Denoiser(self.channels, self.width, self.depth, self.dtype, outputs=1)

    def __call__(self, hidden):
        """Touches all parameters (for initialisation): [..., D] -> float32 [..., C]."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        out = self.denoiser(jnp.zeros((len(flat), self.channels)), jnp.zeros(len(flat)), flat)
        return out.reshape(*hidden.shape[:-1], -1)

    def loss(self, hidden, target, layout=None, weight=None, train: bool = True, quantizer=None, soft=None):
        """Mean squared error of the velocity; arguments as of `Diffusion.loss`.

        Returns:
          The loss, and metrics: none.
        """
        flat = jnp.tile(hidden.reshape(-1, hidden.shape[-1]), (self.repeat, 1))
        target = jnp.tile(target.reshape(-1, self.channels).astype(jnp.float32), (self.repeat, 1))
        weight = jnp.ones(hidden.shape[:2]) if weight is None else weight
        weight = jnp.tile(weight.reshape(-1), self.repeat)
        key_t, key_noise = jax.random.split(self.make_rng("head"))
        t = jax.random.randint(key_t, (len(flat),), 0, self.train_steps)
        error = self.errors(flat, target, t, jax.random.normal(key_noise, target.shape))
        return jnp.sum(error * weight) / jnp.maximum(jnp.sum(weight), 1.0), {}

    def errors(self, hidden, target, t, noise):
        """Squared errors, means over channels: [M, D], [M, C], int [M], [M, C] -> float32 [M]."""
        signal, spread = (jnp.asarray(x, jnp.float32)[t][:, None] for x in _roots(self.signal))
        v = self.denoiser(signal * target + spread * noise, t, hidden)
        return jnp.mean((signal * noise - spread * target - v) ** 2, axis=-1)

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None) -> Sample:
        """Draws latents float32 [B, n, C], see `Head.sample`.

        Guidance is on the velocity; the temperature is a factor on the noise that it starts with.
        """
        if settings.top_k or settings.nucleus:
            raise ValueError("head v_diffusion: top_k and top_p need a categorical head")
        start = settings.temperature * draws.normal((self.channels,))
        flat = hidden.reshape(-1, hidden.shape[-1])
        x = self.denoise(start.reshape(-1, self.channels), flat, guidance)
        return Sample(x.reshape(*draws.shape, self.channels), None)

    def denoise(self, x, hidden, guidance=None):
        """From noise float32 [M, C] to latents, by hidden [M, D], or with guidance [2M, D]."""
        times = trailing(self.train_steps, self.sample_steps)
        shares = np.append(self.signal[times], 1.0)
        now, then = (np.stack(_roots(a), axis=-1).astype(np.float32) for a in (shares[:-1], shares[1:]))
        module, variables = self.denoiser.unbind()
        known = None
        if len(hidden) <= FEW:
            at = jnp.asarray(times)[:, None]
            known = module.apply(variables, at, hidden, method="modulations")

        def step(x, inputs):
            t, (signal, spread), (signal_then, spread_then), modulations = inputs
            both = x if guidance is None else jnp.concatenate([x, x])
            if modulations is None:
                v = module.apply(variables, both, jnp.broadcast_to(t, (len(both),)), hidden)
            else:
                v = module.apply(variables, both, modulations, method="modulated")
            if guidance is not None:
                with_condition, without = jnp.split(v, 2)
                v = without + guidance * (with_condition - without)
            content, noise = signal * x - spread * v, signal * v + spread * x
            return signal_then * content + spread_then * noise, None

        return jax.lax.scan(step, x, (times, now, then, known))[0]


def _roots(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the content and of the noise."""
    return np.sqrt(shares), np.sqrt(1 - shares)
