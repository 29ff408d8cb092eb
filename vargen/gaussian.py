"""Gaussian diffusion in discrete time with learned variance (arXiv 2006.11239, 2102.09672)."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Process:
    """The tables of a process of S steps; computed in float64, since 1/alpha_bar reaches 4e8.

    Attributes:
      betas: float64 [S].
      times: int [S]: the step of the training process that each step stands for.
    """

    betas: np.ndarray
    times: np.ndarray

    @classmethod
    def make(cls, schedule: str, steps: int) -> Process:
        """The training process: "cosine" (arXiv 2102.09672, eq. 17) or "linear" (arXiv 2006.11239)."""
        if schedule == "linear":
            betas = np.minimum(np.linspace(1e-4, 0.02, steps, dtype=np.float64) * (1000 / steps), 0.999)
        elif schedule == "cosine":
            bar = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
            betas = np.minimum(1 - np.divide(bar[1:], bar[:-1]), 0.999)
        else:
            raise ValueError(f"schedule: expected cosine or linear, found {schedule!r}")
        return cls(betas, np.arange(steps))

    def spaced(self, steps: int) -> Process:
        """The same process in fewer, evenly spaced steps (arXiv 2102.09672, section 4)."""
        total = len(self.betas)
        if not 1 <= steps <= total:
            raise ValueError(f"sample_steps: expected 1 to {total}, found {steps}")
        stride = (total - 1) / (steps - 1) if steps > 1 else 1.0
        # Summed, not multiplied, as the published samplers do: the rounding of ties follows from it.
        at = np.cumsum([0.0] + [stride] * (steps - 1))
        times = np.array([round(t) for t in at.tolist()])
        bar = np.cumprod(1 - self.betas)[times]
        return Process(1 - bar / np.concatenate([[1.0], bar[:-1]]), times)

    def __post_init__(self):
        alpha = 1 - self.betas
        bar = np.cumprod(alpha)
        before = np.concatenate([[1.0], bar[:-1]])
        variance = self.betas * (1 - before) / (1 - bar)
        tables = {
            "signal": np.sqrt(bar),
            "noise": np.sqrt(1 - bar),
            "inverse_signal": np.sqrt(1 / bar),
            "inverse_noise": np.sqrt(1 / bar - 1),
            "mean_content": self.betas * np.sqrt(before) / (1 - bar),
            "mean_noisy": (1 - before) * np.sqrt(alpha) / (1 - bar),
            # The posterior's variance is 0 at the first step: its neighbour's stands in.
            "log_least": np.log(
                np.concatenate([variance[1:2], variance[1:]]) if len(bar) > 1 else self.betas
            ),
            "log_most": np.log(self.betas),
        }
        object.__setattr__(self, "_tables", {k: v.astype(np.float32) for k, v in tables.items()})

    def _at(self, name, t):
        value = jnp.asarray(self._tables[name])[t]
        return value[..., None] if value.ndim else value

    def diffuse(self, x, t, noise):
        """A content at time t: x [M, C], t [M], noise [M, C] -> [M, C]."""
        return self._at("signal", t) * x + self._at("noise", t) * noise

    def posterior(self, content, noisy, t):
        """Mean of q(x_(t-1) | x_t, x_0) and the log of its variance."""
        mean = self._at("mean_content", t) * content + self._at("mean_noisy", t) * noisy
        return mean, self._at("log_least", t)

    def predict(self, noisy, t, eps, spread, clip: float = 0.0):
        """Mean and log-variance of p(x_(t-1) | x_t) from predicted noise and interpolation in [-1, 1].

        With `clip`, the content that they imply is kept within [-clip, clip].
        """
        content = self._at("inverse_signal", t) * noisy - self._at("inverse_noise", t) * eps
        content = jnp.clip(content, -clip, clip) if clip else content
        share = (spread + 1) / 2
        log_variance = share * self._at("log_most", t) + (1 - share) * self._at("log_least", t)
        return self.posterior(content, noisy, t)[0], log_variance

    def terms(self, eps, spread, content, noisy, t, noise):
        """Squared error of the noise, and the variational bound in bits, each [M], means over channels."""
        return jnp.mean((noise - eps) ** 2, axis=-1), self.bound(eps, spread, content, noisy, t)

    def bound(self, eps, spread, content, noisy, t):
        """The variational bound in bits, [M], a mean over channels; [M, C] each, t int [M].

        It trains the variance alone: its mean is a constant to the gradient.
        """
        true_mean, true_log = self.posterior(content, noisy, t)
        mean, log_variance = self.predict(noisy, t, jax.lax.stop_gradient(eps), spread)
        kl = 0.5 * (
            -1
            + log_variance
            - true_log
            + jnp.exp(true_log - log_variance)
            + (true_mean - mean) ** 2 * jnp.exp(-log_variance)
        )
        nll = -_discretised_log_likelihood(content, mean, 0.5 * log_variance)
        return jnp.mean(jnp.where((t == 0)[:, None], nll, kl), axis=-1) / math.log(2.0)

    def reverse(self, noisy, t, eps, spread, noise, temperature=1.0, clip: float = 0.0):
        """One step back; adds no noise at t = 0."""
        mean, log_variance = self.predict(noisy, t, eps, spread, clip)
        return mean + jnp.where(t > 0, temperature * jnp.exp(0.5 * log_variance), 0.0) * noise


def _normal_cdf(x):
    """The tanh approximation, which the published losses use."""
    return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _discretised_log_likelihood(x, mean, log_scale):
    """Log-probability of x under a Gaussian gathered into bins of 2/255, open at -1 and 1."""
    centred, inverse = x - mean, jnp.exp(-log_scale)
    above, below = _normal_cdf(inverse * (centred + 1 / 255)), _normal_cdf(inverse * (centred - 1 / 255))

    def log(p):
        return jnp.log(jnp.maximum(p, 1e-12))

    return jnp.where(x < -0.999, log(above), jnp.where(x > 0.999, log(1 - below), log(above - below)))
