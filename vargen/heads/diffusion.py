"""The diffusion head: a small denoiser per slot (MAR, arXiv 2406.11838)."""

from __future__ import annotations

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.heads.gaussian import Process
from vargen.heads.head import Sample
from vargen.layers import Dense, Initial, Norm, sinusoid
from vargen.limits import COUNT, SIZE, AtLeast, Between, OneOf

FREQUENCIES = 256
# Up to so many rows the modulations of all steps are made in one product before the loop: they are most of the
# denoiser's weights, which each step would read again. For more rows the products take the time, and memory runs out.
FEW = 32


class Denoiser(nn.Module):
    """Two outputs a channel (the noise and the variance's interpolation), or one, from a noisy content, its time and a
    hidden vector.

    An MLP of residual blocks modulated by time and hidden vector; blocks and output start at zero, as in DiT.
    """

    channels: int
    width: int
    depth: int
    dtype: Any = jnp.float32
    outputs: int = 2

    def setup(self):
        def dense(features, init=None, names=("embed", "mlp")):
            return Dense(features, names, init or Initial(0).kernel(), dtype=self.dtype)

        small, zero = nn.initializers.normal(0.02), nn.initializers.zeros
        self.time_1 = dense(self.width, small, (None, "mlp"))
        self.time_2 = dense(self.width, small, ("mlp", "embed"))
        self.hidden = dense(self.width)
        self.content = dense(self.width, None, ("latent", "embed"))
        self.modulation = [dense(3 * self.width, zero) for _ in range(self.depth)]
        self.norm = [Norm() for _ in range(self.depth)]
        self.inner = [dense(self.width) for _ in range(self.depth)]
        self.outer = [dense(self.width, None, ("mlp", "embed")) for _ in range(self.depth)]
        self.modulation_out = dense(2 * self.width, zero)
        self.norm_out = Norm(affine=False)
        self.out = dense(self.outputs * self.channels, zero, ("embed", "latent"))

    def __call__(self, x, t, hidden):
        """x float32 [M, C], t [M] in training steps, hidden [M, D] -> float32 [M, outputs C]."""
        return self.modulated(x, self.modulations(t, hidden))

    def modulations(self, t, hidden):
        """What doesn't depend on the content: t [..., M], hidden [M, D] -> list of [..., M, 3 width], [.., 2 width]."""
        time = self.time_2(nn.silu(self.time_1(sinusoid(t, FREQUENCIES))))
        y = nn.silu(time + self.hidden(hidden))
        return [layer(y) for layer in (*self.modulation, self.modulation_out)]

    def modulated(self, x, modulations):
        """The rest: x float32 [M, C] -> float32 [M, outputs C]."""
        x = self.content(x)
        for i in range(self.depth):
            shift, scale, gate = jnp.split(modulations[i], 3, axis=-1)
            h = self.norm[i](x) * (1 + scale) + shift
            x = x + gate * self.outer[i](nn.silu(self.inner[i](h)))
        shift, scale = jnp.split(modulations[-1], 2, axis=-1)
        return self.out(self.norm_out(x) * (1 + scale) + shift).astype(jnp.float32)


class Diffusion(nn.Module):
    """p(content | hidden) by denoising: trained on noise prediction and the variational bound.

    Attributes:
      channels: C, the latents' channels.
      depth, width: of the denoiser.
      train_steps: steps of the process in training.
      sample_steps: steps of sampling, evenly spaced among them.
      schedule: "cosine" (arXiv 2102.09672) or "linear" (arXiv 2006.11239).
      repeat: times and noises drawn per slot and training step.
      clip: in sampling, keeps the predicted content within [-clip, clip]; 0 leaves it, as the authors do. At the
        first step it is 2e4 times the error of the noise, which a briefly trained denoiser does not recover from.
      dtype: compute dtype of the denoiser.
    """

    channels: int
    depth: Annotated[int, COUNT] = 3
    width: Annotated[int, SIZE] = 1024
    train_steps: Annotated[int, Between(1, 10**5)] = 1000
    sample_steps: Annotated[int, Between(1, 10**5)] = 100
    schedule: Annotated[str, OneOf("cosine", "linear")] = "cosine"
    repeat: Annotated[int, Between(1, 1024)] = 4
    clip: Annotated[float, AtLeast(0)] = 0.0
    dtype: Any = jnp.float32

    explicit = False
    levels = None
    shares = ()
    enumerable = False
    each_stage = False

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold codes."""
        if slot.vocab:
            raise ValueError(f"head diffusion: expected a tokenizer of latents, found slots of {slot}")

    def setup(self):
        self.denoiser = Denoiser(self.channels, self.width, self.depth, self.dtype)
        self.process = Process.make(self.schedule, self.train_steps)
        self.short = self.process.spaced(self.sample_steps)

    def __call__(self, hidden):
        """Touches all parameters (for initialisation): [..., D] -> float32 [..., 2C]."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        out = self.denoiser(jnp.zeros((len(flat), self.channels)), jnp.zeros(len(flat)), flat)
        return out.reshape(*hidden.shape[:-1], -1)

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
        flat = jnp.tile(hidden.reshape(-1, hidden.shape[-1]), (self.repeat, 1))
        target = jnp.tile(target.reshape(-1, self.channels).astype(jnp.float32), (self.repeat, 1))
        weight = jnp.ones(hidden.shape[:2]) if weight is None else weight
        weight = jnp.tile(weight.reshape(-1), self.repeat)
        key_t, key_noise = jax.random.split(self.make_rng("head"))
        t = jax.random.randint(key_t, (len(flat),), 0, self.train_steps)
        mse, bound = self.terms(flat, target, t, jax.random.normal(key_noise, target.shape))
        total = jnp.maximum(jnp.sum(weight), 1.0)
        mse, bound = jnp.sum(mse * weight) / total, jnp.sum(bound * weight) / total
        return mse + bound, {"mse": mse, "bound": bound}

    def terms(self, hidden, target, t, noise):
        """Both terms for given times and noises: [M, D], [M, C], int [M], [M, C] -> float32 [M], [M]."""
        x = self.process.diffuse(target, t, noise)
        return self.process.terms(self.denoiser(x, t, hidden), target, x, t, noise)

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None) -> Sample:
        """Draws latents float32 [B, n, C] by the reverse process, see `Head.sample`.

        Guidance is on the predicted noise; the temperature is a factor on the noise that is added at every step.
        """
        if settings.top_k or settings.nucleus:
            raise ValueError("head diffusion: top_k and top_p need a categorical head")
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
        times = jnp.asarray(self.short.times)[steps]
        # A bound Linen module may not be called inside a plain scan: go through its pure form.
        module, variables = self.denoiser.unbind()
        known = None
        if len(hidden) <= FEW:
            known = module.apply(variables, times[:, None], hidden, method="modulations")

        def step(x, inputs):
            s, t, noise, modulations = inputs
            both = x if guidance is None else jnp.concatenate([x, x])
            if modulations is None:
                out = module.apply(variables, both, jnp.broadcast_to(t, (len(both),)), hidden)
            else:
                out = module.apply(variables, both, modulations, method="modulated")
            eps, spread = jnp.split(out, 2, axis=-1)
            if guidance is not None:
                with_condition, without = jnp.split(eps, 2)
                eps, spread = without + guidance * (with_condition - without), spread[: len(x)]
            return self.short.reverse(x, s, eps, spread, noise, temperature, self.clip), None

        return jax.lax.scan(step, x, (steps, times, noise, known))[0]
