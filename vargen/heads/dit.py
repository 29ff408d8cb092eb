"""The DiT head: a diffusion transformer draws what is unknown of a level, looking at what is known (Hi-MAR)."""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.content import take
from vargen.gaussian import Process
from vargen.heads.head import Around, Sample
from vargen.heads.plain import OfLatents, check_steps, guided
from vargen.kernels import Onto, Part
from vargen.layers import Dense, Initial, Mlp, Norm, place_waves, product, products, sinusoid
from vargen.limits import COUNT, SIZE, AtLeast, Between, OneOf
from vargen.mixers.primitives import step_attention
from vargen.sharding import by_batch

FREQUENCIES = 256
XAVIER, ZERO, SMALL = Initial(0).kernel(), nn.initializers.zeros, nn.initializers.normal(0.02)


class DitBlock(nn.Module):
    """Attention among all rows and an MLP, modulated and gated by each row's condition (DiT, arXiv 2212.09748)."""

    width: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x, condition):
        """x [B, n, W], condition (of silu) [B, n, W] -> [B, n, W]."""

        def dense(features, axes, init, name):
            return Dense(features, axes, init, dtype=self.dtype, name=name)

        both = product(condition, dense(6 * self.width, ("embed", "mlp"), ZERO, "modulation"))
        both = both.reshape(*both.shape[:-1], 6, self.width)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (Part(both, None, i) for i in range(6))
        # As Xavier's rule makes query, key and value of one matrix.
        init = Initial(0).kernel(0.5**0.5)
        layers = [dense(self.width, ("embed", "heads"), init, name) for name in ("query", "key", "value")]
        heads = products(Norm(affine=False).ahead(x, scale_1, shift_1), *layers)
        q, k, v = (y.reshape(*y.shape[:-1], self.heads, -1) for y in heads)
        times = np.zeros(x.shape[1], np.int32)
        y = step_attention(q, k, v, times, times, scale=(self.width // self.heads) ** -0.5)
        out = dense(self.width, ("heads", "embed"), XAVIER, "out")
        x = product(y.reshape(x.shape), out, onto=Onto(x, gate_1))
        mlp = Mlp(4 * self.width, "gelu_tanh", XAVIER, XAVIER, dtype=self.dtype, name="feed_forward")
        return mlp(Norm(affine=False).ahead(x, scale_2, shift_2), onto=Onto(x, gate_2))


class DitNetwork(nn.Module):
    """The noise in the contents of a level, from their time and hidden vectors."""

    channels: int
    width: int
    depth: int
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, t, hidden, places: np.ndarray):
        """x float32 [B, n, C], t [B] or [1] in training steps, hidden [B, n, D], places int [n, 2] -> [B, n, C]."""

        def dense(features, init, names, name):
            return Dense(features, names, init, dtype=self.dtype, name=name)

        time = dense(self.width, SMALL, (None, "mlp"), "time_1")(sinusoid(t, FREQUENCIES))
        time = dense(self.width, SMALL, ("mlp", "embed"), "time_2")(by_batch(nn.silu(time)))
        condition = nn.silu(time[:, None] + dense(self.width, XAVIER, ("embed", "mlp"), "hidden")(hidden))
        x = dense(self.width, XAVIER, ("latent", "embed"), "content")(x)
        x = x + place_waves(places, self.width).astype(x.dtype)
        for i in range(self.depth):
            x = DitBlock(self.width, self.heads, self.dtype, name=f"block_{i}")(x, condition)
        both = dense(2 * self.width, ZERO, ("embed", "mlp"), "modulation_out")(condition)
        shift, scale = jnp.split(both, 2, axis=-1)
        x = Norm(affine=False)(x, scale, shift)
        return dense(self.channels, ZERO, ("embed", "latent"), "out")(x).astype(jnp.float32)


class Dit(OfLatents):
    """p(contents of a level's unknown slots | the known ones, all hidden vectors) by denoising all of them together.

    Trained on the noise of all slots at one time for each example. In sampling the known ones are, before every step,
    their contents with the noise that sampling began with; all others are drawn, and those of the step kept. The
    variance is fixed at the process's betas.

    Attributes:
      tokenizer: whose slots they are.
      channels: C, the latents' channels.
      depth, width, heads: of the network.
      train_steps: steps of the process in training.
      sample_steps: steps of sampling, evenly among those.
      schedule: as of the head diffusion.
      clip: in sampling, keeps the predicted content within [-clip, clip]; 0 leaves it, as the authors do.
      dtype: compute dtype of the network.
    """

    tokenizer: Any
    channels: int
    depth: Annotated[int, COUNT] = 6
    width: Annotated[int, SIZE] = 512
    heads: Annotated[int, Between(1, 4096)] = 8
    train_steps: Annotated[int, Between(1, 10**5)] = 1000
    sample_steps: Annotated[int, Between(1, 10**5)] = 250
    schedule: Annotated[str, OneOf("cosine", "linear")] = "cosine"
    clip: Annotated[float, AtLeast(0)] = 0.0
    dtype: Any = jnp.float32

    around = True
    called = "dit"

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold codes, more steps of sampling than there are, or a width that doesn't
        divide into heads and waves."""
        super().check(slot)
        check_steps(self.sample_steps, self.train_steps)
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"config field head.heads: expected a divisor of the width {self.width}, a multiple of 4, found "
                f"{self.heads}"
            )

    def setup(self):
        self.network = DitNetwork(self.channels, self.width, self.depth, self.heads, self.dtype)
        self.process = Process.make(self.schedule, self.train_steps)
        self.short = self.process.spaced(self.sample_steps)

    def __call__(self, hidden):
        """Touches all parameters (for initialisation): [B, n, D] -> float32 [B, n, C]."""
        x = jnp.zeros((*hidden.shape[:2], self.channels))
        return self.network(x, jnp.zeros(1), hidden, np.zeros((x.shape[1], 2), int))

    def loss(self, hidden, target, layout=None, weight=None, train: bool = True, quantizer=None, soft=None):
        """Squared error of the noise, a mean over all slots, of which those of weight 0 add nothing; see `Head.loss`.

        Args:
          hidden, target: [B, n, D], [B, n, C] of all slots, or of the last level's.
          layout, train, quantizer, soft: unused here.
          weight: float32 [B, n], or None for ones.

        Returns:
          The loss, and metrics: mse, by weight.
        """
        key_t, key_noise = jax.random.split(self.make_rng("head"))
        t = jax.random.randint(key_t, (len(hidden),), 0, self.train_steps)
        error = self.errors(hidden, target, t, jax.random.normal(key_noise, target.shape))
        weight = jnp.ones(error.shape) if weight is None else weight
        total = jnp.sum(error * weight)
        return total / error.size, {"mse": total / jnp.maximum(jnp.sum(weight), 1.0)}

    def errors(self, hidden, target, t, noise):
        """float32 [B, n]: squared errors of given times int [B] and noise [B, n, C]; the others as of `loss`."""
        x = self.process.diffuse(target.astype(jnp.float32), t[:, None], noise)
        eps = self.network(x, t, hidden, self._places(x))
        return jnp.mean(jnp.square(eps - noise), axis=-1)

    def sample(
        self, hidden, draws, layout, settings, guidance=None, quantizer=None, around: Around | None = None
    ) -> Sample:
        """Draws latents float32 [B, m, C] of the slots that `around` names, see `Head.sample`.

        Guidance is on the predicted noise, of what the rows with the condition have drawn so far; the temperature is a
        factor on the noise that every step adds.
        """
        noise = draws.normal((self.sample_steps + 1, self.channels))
        if around is None:
            around = Around(None, jnp.zeros(noise[..., 0, :].shape), jnp.zeros(draws.shape, bool))
        noise = jnp.moveaxis(noise, 2, 0)
        x = self.denoise(
            noise[0], hidden, noise[1:], around.content, around.known, guidance, settings.temperature
        )
        return Sample(x if around.slots is None else take(x, around.slots), None)

    def denoise(self, first, hidden, noise, content, known, guidance=None, temperature=1.0):
        """The whole reverse process from given noise.

        Args:
          first: float32 [B, n, C], where it starts.
          hidden: [B, n, D], or with guidance [2B, n, D].
          noise: float32 [S, B, n, C], what each of the S steps adds.
          content, known: [B, n, C], and which of it is known, bool [B, n].
          guidance, temperature: as in `sample`.
        """
        # A bound Linen module may not be called inside a plain scan: go through its pure form.
        module, variables = self.network.unbind()
        places = self._places(first)

        def step(x, at):
            s, t, noise = at
            x = jnp.where(known[..., None], self.short.diffuse(content, s, first), x)
            both = x if guidance is None else jnp.concatenate([x, x])
            eps = guided(module.apply(variables, both, t[None], hidden, places), guidance)
            return self.short.reverse(x, s, eps, 1.0, noise, temperature, self.clip), None

        steps = np.arange(self.sample_steps)[::-1]
        times = jnp.asarray(self.short.times[steps])
        return jax.lax.scan(step, first, (jnp.asarray(steps), times, noise))[0]

    @property
    def places(self) -> np.ndarray:
        """int [n, 2]: those of the last level's slots."""
        return self.tokenizer.grid.coords[-self.tokenizer.grid.level_sizes[-1] :, 2:]

    def _places(self, x) -> np.ndarray:
        """int [n, 2]: of x [B, n, C], the first of them."""
        return self.places[: x.shape[1]]
