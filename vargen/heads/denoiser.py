"""A small denoiser per slot, and what the heads have in common that draw by it (MAR, arXiv 2406.11838)."""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.heads.plain import OfLatents, guided
from vargen.kernels import Onto, Part
from vargen.layers import Dense, Initial, Norm, product, sinusoid
from vargen.limits import COUNT, SIZE, Between
from vargen.sharding import by_batch

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
        return self.modulated(x, self.modulations(t[:, None], hidden))

    def modulations(self, t, hidden):
        """What doesn't depend on the content: t [1 or M, S], hidden [M, D] -> of each block [M, S, 3, width] (shift,
        scale, gate), then [M, S, 2, width]."""
        time = self.time_2(by_batch(nn.silu(self.time_1(sinusoid(t, FREQUENCIES)))))
        y, found = nn.silu(time + self.hidden(hidden)[:, None]), []
        for layer in (*self.modulation, self.modulation_out):
            # In turn: all as one product would ask for their weights side by side, copied.
            y, last = jax.lax.optimization_barrier((y, found[-1:]))
            found[-1:] = [*last, layer(y)]
        return [m.reshape(*m.shape[:2], -1, self.width) for m in found]

    def modulated(self, x, modulations, at=None):
        """The rest: x float32 [M, C] -> float32 [M, outputs C], by modulations whose S is 1, or those at one."""
        x = product(x[:, None], self.content)
        for i in range(self.depth):
            shift, scale, gate = (Part(modulations[i], at, j) for j in range(3))
            h = product(self.norm[i].ahead(x, scale, shift), self.inner[i], act="silu")
            x = product(h, self.outer[i], onto=Onto(x, gate))
        shift, scale = (Part(modulations[-1], at, j) for j in range(2))
        return product(self.norm_out.ahead(x, scale, shift), self.out)[:, 0].astype(jnp.float32)


class Denoising(OfLatents):
    """Heads whose denoiser is told a noisy content, its time and the hidden vector.

    Attributes:
      channels: C, the latents' channels.
      depth, width: of the denoiser.
      train_steps: steps of the process in training.
      sample_steps: steps of sampling.
      repeat: times and noises drawn per slot and training step.
      dtype: compute dtype of the denoiser.
    """

    channels: int
    depth: Annotated[int, COUNT] = 3
    width: Annotated[int, SIZE] = 1024
    train_steps: Annotated[int, Between(1, 10**5)] = 1000
    sample_steps: Annotated[int, Between(1, 10**5)] = 100
    repeat: Annotated[int, Between(1, 1024)] = 4
    dtype: Any = jnp.float32

    outputs = 2  # of the denoiser, for each channel

    def setup(self):
        self.denoiser = Denoiser(self.channels, self.width, self.depth, self.dtype, self.outputs)

    def __call__(self, hidden):
        """Touches all parameters (for initialisation): [..., D] -> float32 [..., outputs C]."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        out = self.denoiser(jnp.zeros((len(flat), self.channels)), jnp.zeros(len(flat)), flat)
        return out.reshape(*hidden.shape[:-1], -1)

    def cases(self, hidden, target, weight=None):
        """What a training step learns: every slot `repeat` times, each with a time and a noise of its own.

        Args:
          hidden: [B, n, D].
          target: latents [B, n, C].
          weight: float32 [B, n], or None for ones.

        Returns:
          Of M = repeat B n cases: hidden [M, D], target float32 [M, C], t int32 [M], noise float32 [M, C], and their
          weights float32 [M].
        """
        weight = jnp.ones(hidden.shape[:2]) if weight is None else weight

        def repeated(x):
            # A picture's together: where devices split the batch, they split the cases likewise.
            x = jnp.tile(x, (1, self.repeat, *[1] * (x.ndim - 2)))
            return by_batch(x.reshape(-1, *x.shape[2:]))

        hidden, target, weight = map(repeated, (hidden, target.astype(jnp.float32), weight))
        key_t, key_noise = jax.random.split(self.make_rng("head"))
        t = jax.random.randint(key_t, weight.shape, 0, self.train_steps)
        return hidden, target, by_batch(t), by_batch(jax.random.normal(key_noise, target.shape)), weight

    def passes(self, step, x, hidden, times, inputs, guidance=None):
        """Denoises x float32 [M, C] in S steps: `step(x, first, others, at)` is x after one.

        Args:
          step: of x, of the denoiser's first C outputs of it and the others, and of what `inputs` hold for the step.
          hidden: [M, D], or with guidance [2M, D].
          times: [S], in training steps.
          inputs: arrays [S, ...].
          guidance: as in `Head.sample`, on the first outputs.
        """
        # A bound Linen module may not be called inside a plain scan: go through its pure form.
        module, variables = self.denoiser.unbind()
        times, inputs = jax.tree.map(jnp.asarray, (times, inputs))
        known = None
        if len(hidden) <= FEW:
            known = module.apply(variables, times[None], hidden, method="modulations")

        def body(s, x):
            both = x if guidance is None else jnp.concatenate([x, x])
            if known is None:
                out = module.apply(variables, both, jnp.broadcast_to(times[s], (len(both),)), hidden)
            else:
                out = module.apply(variables, both, known, s, method="modulated")
            first, others = out[:, : self.channels], out[: len(x), self.channels :]
            return step(x, guided(first, guidance), others, jax.tree.map(lambda y: y[s], inputs))

        return jax.lax.fori_loop(0, len(times), body, x)
