"""The flow head: a transformer draws all slots of a step together by flow matching (FlowAR, arXiv 2412.15205)."""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.content import repeat_to
from vargen.heads.head import Sample
from vargen.heads.plain import OfLatents, guided, mean
from vargen.kernels import Onto, Part
from vargen.layers import Dense, Initial, Mlp, Norm, product, products, sinusoid
from vargen.layout import Layout
from vargen.limits import COUNT, SHARE, SIZE, Between, OneOf
from vargen.mixers.primitives import step_attention
from vargen.mixers.rope import rotate
from vargen.sharding import by_batch

FREQUENCIES = 256
XAVIER = Initial(0).kernel()


def dense(
    features: int, names=("embed", "mlp"), bias: bool = True, dtype=jnp.float32, name: str | None = None
):
    """A linear layer that starts by Xavier's rule, as all of the network."""
    return Dense(features, names, XAVIER, bias, dtype, name=name)


class Among(nn.Module):
    """Attention of rows to those of their own step, with rotary positions; or to others that lie beside them.

    Attributes:
      width, heads: W and H.
      dtype: compute dtype.
    """

    width: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x, layout: Layout, onto: Onto, other=None):
        """x [B, n, W], also `Ahead`, `other` [B, n, D] or None for x itself -> [B, n, W], added to what `onto` says."""
        names = "query", "key", "value"
        layers = [dense(self.width, ("embed", "heads"), False, self.dtype, name) for name in names]
        if other is None:
            found = products(x, *layers)
        else:
            found = [product(x, layers[0]), *products(other, *layers[1:])]
        q, k, v = (y.reshape(*y.shape[:-1], self.heads, -1) for y in found)
        q, k = rotate(q, layout.coords), rotate(k, layout.coords)
        scale = (self.width // self.heads) ** -0.5
        y = step_attention(q, k, v, layout.times, layout.times, window=0, scale=scale)
        out = dense(self.width, ("heads", "embed"), True, self.dtype, "out")
        return product(y.reshape(onto.residual.shape), out, onto=onto)


class FlowBlock(nn.Module):
    """Attention within the step and a gated MLP, modulated by time and hidden vector, each row by its own.

    With `cross` the attention is modulated by the time alone, and its rows then look at the hidden vectors of the step.
    """

    width: int
    heads: int
    cross: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, time, both, hidden, layout: Layout):
        """x [B, n, W], time and both (of silu) [B or 1, n or 1, W], hidden [B, n, D] -> [B, n, W]."""

        def modulations(count, y, name):
            y = product(y, dense(count * self.width, dtype=self.dtype, name=name))
            y = y.reshape(*y.shape[:-1], count, self.width)
            return [Part(y, None, i) for i in range(count)]

        if self.cross:
            gates, scales, shifts = zip(
                modulations(3, time, "modulation_time"), modulations(3, both, "modulation"), strict=True
            )
        else:
            six = modulations(6, both, "modulation")
            gates, scales, shifts = six[0:2], six[2:4], six[4:6]
        own, norm = Among(self.width, self.heads, self.dtype, name="attention"), Norm("rms", False)
        x = own(norm.ahead(x, scales[0], shifts[0]), layout, Onto(x, gates[0]))
        if self.cross:
            look = Among(self.width, self.heads, self.dtype, name="cross")
            row, other = (Norm("rms", name=f"norm_{name}") for name in ("row", "hidden"))
            x = look(row.ahead(x), layout, Onto(x, None), other.ahead(hidden))
        mlp = Mlp(8 * self.width // 3, "geglu", XAVIER, XAVIER, dtype=self.dtype, name="feed_forward")
        return mlp(norm.ahead(x, scales[1], shifts[1]), onto=Onto(x, gates[1]))


class FlowNetwork(nn.Module):
    """The velocity of a step's noisy contents, from their time and the step's hidden vectors."""

    channels: int
    width: int
    depth: int
    heads: int
    cross: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, t, hidden, layout: Layout):
        """x float32 [B, n, C], t [B or 1, n or 1] in thousandths, hidden [B, n, D] -> float32 [B, n, C]."""
        time = sinusoid(t, FREQUENCIES)
        time = dense(self.width, (None, "mlp"), dtype=self.dtype, name="time_1")(time)
        time = dense(self.width, ("mlp", "embed"), dtype=self.dtype, name="time_2")(by_batch(nn.silu(time)))
        both = nn.silu(time + dense(self.width, dtype=self.dtype, name="hidden")(hidden))
        time = nn.silu(time)
        x = dense(self.width, ("latent", "embed"), dtype=self.dtype, name="content")(x)
        for i in range(self.depth):
            block = FlowBlock(self.width, self.heads, self.cross, self.dtype, name=f"block_{i}")
            x = block(x, time, both, hidden, layout)
        out = dense(2 * self.width, dtype=self.dtype, name="modulation_out")(both)
        shift, scale = jnp.split(out, 2, axis=-1)
        x = Norm("rms", False)(x, scale, shift)
        return dense(self.channels, ("embed", "latent"), dtype=self.dtype, name="out")(x).astype(jnp.float32)


class Flow(OfLatents):
    """p(contents of a step | their hidden vectors) by flow matching, over all slots of the step at once.

    Trained on v = noise - content at x = (1 - t) content + t noise, with an even t for each step of the order, every
    slot with the same weight; drawn by Euler's method from t = 1 to 0.

    Attributes:
      channels: C, the latents' channels.
      depth, width: of the network.
      heads: of its attention; 0: of 64 channels each.
      cross: whether rows look at the hidden vectors in each block too ("v2" of the official code).
      sample_steps: passes.
      times: "even" from 1 to 0; or "late" (official code): half of the times from 1 to 0.3, half from 0.25 to 0, which
        makes a pass fewer where their number is odd.
      guidance_until: guidance acts at times up to this.
      dtype: compute dtype of the network.
    """

    channels: int
    depth: Annotated[int, COUNT] = 2
    width: Annotated[int, SIZE] = 1024
    heads: Annotated[int, Between(0, 4096)] = 0
    cross: bool = False
    sample_steps: Annotated[int, Between(2, 10**5)] = 25
    times: Annotated[str, OneOf("even", "late")] = "even"
    guidance_until: Annotated[float, SHARE] = 1.0
    dtype: Any = jnp.float32

    called = "flow"

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold codes, or a width that doesn't divide into heads of rotary pairs."""
        super().check(slot)
        heads = self.heads or max(self.width // 64, 1)
        if self.width % heads or (self.width // heads) % 4:
            found = f"out of {self.width}, found {heads} heads"
            raise ValueError(f"config field head.heads: expected heads of a multiple of 4 channels {found}")

    def setup(self):
        heads = self.heads or max(self.width // 64, 1)
        self.network = FlowNetwork(self.channels, self.width, self.depth, heads, self.cross, self.dtype)

    def __call__(self, hidden):
        """Touches all parameters (for initialisation): [B, n, D] -> float32 [B, n, C]."""
        n = hidden.shape[1]
        layout = Layout(np.zeros(n, np.int32), np.zeros((n, 2), np.int32))
        x = jnp.zeros((*hidden.shape[:2], self.channels))
        return self.network(x, jnp.zeros((1, 1)), hidden, layout)

    def loss(self, hidden, target, layout, weight=None, train: bool = True, quantizer=None, soft=None):
        """Mean squared error of the velocity, see `Head.loss`; each step of `layout.times` apart, at a time of its own.

        Returns:
          The loss, and metrics: none.
        """
        key_t, key_noise = jax.random.split(self.make_rng("head"))
        t = jax.random.uniform(key_t, (len(hidden), hidden.shape[1] + 1))
        # Counted from the first: of a segment or a round steps may begin anywhere.
        steps = layout.times - layout.times.min(axis=-1, keepdims=True)
        steps = jnp.broadcast_to(jnp.asarray(steps), hidden.shape[:2])
        t = jnp.take_along_axis(t, jnp.minimum(steps, hidden.shape[1]), axis=1)
        error = self.errors(hidden, target, layout, t, jax.random.normal(key_noise, target.shape))
        return mean(error, weight), {}

    def errors(self, hidden, target, layout: Layout, t, noise):
        """float32 [B, n]: squared errors of given times [B, n] and noise [B, n, C]; the others as of `loss`."""
        target = target.astype(jnp.float32)
        x = (1 - t[..., None]) * target + t[..., None] * noise
        velocity = self.network(x, jnp.floor(1000 * t), hidden, layout)
        return jnp.mean(jnp.square(velocity - (noise - target)), axis=-1)

    @property
    def grid(self) -> np.ndarray:
        """float32 [P + 1]: the times between passes, from 1 to 0."""
        if self.times == "even":
            return np.linspace(1, 0, self.sample_steps + 1, dtype=np.float32)
        half = self.sample_steps // 2
        return np.append(np.linspace(1, 0.3, half), np.linspace(0.25, 0, half + 1)).astype(np.float32)

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """Draws latents float32 [B, n, C] of a step, see `Head.sample`.

        Guidance is on the velocity, of what the row with the condition has drawn so far; the temperature is a factor on
        the noise that it starts from.
        """
        noise = settings.temperature * draws.normal((self.channels,))
        return Sample(self.flow(noise, hidden, layout, guidance), None)

    def flow(self, x, hidden, layout: Layout, guidance=None):
        """From noise float32 [B, n, C] at t = 1 to contents; hidden [B, n, D], or under guidance [2B, n, D]."""
        # A bound Linen module may not be called inside a plain scan: go through its pure form.
        module, variables = self.network.unbind()
        layout = _for(layout, len(hidden))

        def step(x, times):
            t, after = times
            both = x if guidance is None else jnp.concatenate([x, x])
            v = module.apply(variables, both, jnp.floor(1000 * t)[None, None], hidden, layout)
            scale = None if guidance is None else jnp.where(t <= self.guidance_until, guidance, 1.0)
            return x + (after - t) * guided(v, scale), None

        times = jnp.asarray(self.grid)
        return jax.lax.scan(step, x, (times[:-1], times[1:]))[0]


def _for(layout: Layout, batch: int) -> Layout:
    """The layout for a batch that is a multiple of its own."""
    times, coords = (
        repeat_to(x, batch) if x.ndim == axes else x for x, axes in ((layout.times, 2), (layout.coords, 3))
    )
    return Layout(times, coords)
