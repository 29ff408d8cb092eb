"""The Bernoulli diffusion head: which bits of a draft are flipped (Binary Latent Diffusion, arXiv 2304.04820)."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vargen.content import Noised
from vargen.heads.head import Sample
from vargen.heads.joint import Joint, of_steps
from vargen.heads.plain import mean
from vargen.limits import AtLeast, Between, OneOf


class Flips(NamedTuple):
    """What is to be predicted.

    Attributes:
      flipped: float32 [B, N, C], 1 where the draft's bit isn't the content's.
      times: int32 [B, N], 1 to T.
    """

    flipped: jax.Array
    times: jax.Array


class BernoulliDiffusion(Joint):
    """Trained on which bits of z_t are flipped, where each of z_0 is with the probability (1 - k_t) / 2 by the time t
    (0 to T, a time of its own for each step of the order); k falls from 1 to 0.

    The loss is a mean over bits: the cross-entropy of the flips, and some of the variational bound, the divergence of
    p(z_(t-1) | z_t) from q(z_(t-1) | z_t, z_0).

    In sampling guidance is on the logits, which the temperature divides; bits of the last pass are the likeliest.

    Attributes:
      sample_steps: P, passes for a step, at times evenly from T to 1.
      train_steps: T.
      schedule: "linear", k_t = 1 - t / T, or "cosine", k_t = (1 + cos(pi t / T)) / 2.
      bound_weight: of the bound.
      weights: of times in the loss: "even"; or "falling", 1 - (t - 1) / T (the official code has both), by which what
        the condition alone can tell, as at time T, is learnt late.
      posterior: what p(z_s | z_t) is of an uncertain z_0: "mixture", the mean of q(z_s | z_t, z_0); or "product",
        q(z_t | z_s) times q(z_s) of the mean z_0, normalised (the paper), which counts z_t twice and flips less.
    """

    sample_steps: Annotated[int, Between(1, 10**4)] = 16
    train_steps: Annotated[int, Between(2, 10**4)] = 256
    schedule: Annotated[str, OneOf("linear", "cosine")] = "linear"
    bound_weight: Annotated[float, AtLeast(0)] = 0.1
    weights: Annotated[str, OneOf("even", "falling")] = "even"
    posterior: Annotated[str, OneOf("mixture", "product")] = "mixture"

    called = "bernoulli_diffusion"

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold anything but several bits, and more passes than times."""
        if slot.vocab != 2 or len(slot.shape) != 1:
            raise ValueError(
                f"head {self.called}: expected a tokenizer of bits, such as binary, found slots of {slot}"
            )
        if self.sample_steps > self.train_steps:
            raise ValueError(
                f"config field head.sample_steps: expected at most train_steps, {self.train_steps}, found "
                f"{self.sample_steps}"
            )

    @property
    def kept(self) -> np.ndarray:
        """float64 [T + 1]: k_t, how much of z_0 is kept."""
        t = np.arange(self.train_steps + 1) / self.train_steps
        return 1 - t if self.schedule == "linear" else (1 + np.cos(np.pi * t)) / 2

    @property
    def times(self) -> np.ndarray:
        """int [P + 1]: of the passes, and 0."""
        return np.append(np.round(np.linspace(self.train_steps, 1, self.sample_steps)).astype(int), 0)

    @property
    def noise_levels(self) -> np.ndarray:
        """float32 [P]: times in thousandths of T."""
        return (1000 * self.times[:-1] / self.train_steps).astype(np.float32)

    def noised(self, content, steps) -> Noised:
        """Bits [B, N, C] at times drawn evenly from 1 to T; see `JointHead.noised`."""
        key_time, key_noise = jax.random.split(self.make_rng("head"))
        times = of_steps(
            lambda k, s: jax.random.randint(k, s, 1, self.train_steps + 1), key_time, len(content), steps
        )
        return self.at(content, times, jax.random.uniform(key_noise, content.shape))

    def at(self, content, times, uniforms) -> Noised:
        """Bits int32 [B, N, C] at times int [B, N], flipped where `uniforms` float32 [B, N, C] are low enough."""
        flipped = uniforms < (1 - jnp.asarray(self.kept, jnp.float32)[times][..., None]) / 2
        level = 1000.0 * times / self.train_steps
        target = Flips(flipped.astype(jnp.float32), times)
        return Noised(content, content ^ flipped.astype(content.dtype), level.astype(jnp.float32), target)

    def loss(self, hidden, target, layout=None, weight=None, train: bool = True, quantizer=None, soft=None):
        """See the class, and `Head.loss`.

        Args:
          hidden: [B, N, D].
          target: `Flips`, of `Noised`.
          layout, train, quantizer, soft: unused here.
          weight: float32 [B, N], or None for ones.

        Returns:
          The loss, and metrics: nats, the flips' cross-entropy, and bound, without the weights of times.
        """
        nats, bound = (jnp.mean(x, axis=-1) for x in self.terms(hidden, target))
        loss = nats + self.bound_weight * bound
        if self.weights == "falling":
            loss = loss * (1 - (target.times - 1) / self.train_steps)
        loss = mean(loss, weight)
        return loss, {"nats": mean(nats, weight), "bound": mean(bound, weight)}

    def terms(self, hidden, target: Flips):
        """Both terms of each bit, in nats: float32 [B, N, C] each."""
        logits, flipped, times = self(hidden), target.flipped, target.times[..., None]
        nats = jax.nn.softplus(logits) - flipped * logits
        # At the last time the bound is the cross-entropy itself; the other form has no logarithm of 0 at any.
        after = jnp.maximum(times - 1, 1)
        q, p = (self.flip(f, jnp.maximum(times, 2), after) for f in (flipped, jax.nn.sigmoid(logits)))
        bound = q * jnp.log(q / p) + (1 - q) * jnp.log((1 - q) / (1 - p))
        return nats, jnp.where(target.times[..., None] > 1, bound, nats)

    def flip(self, flipped, time: Any, after: Any):
        """P(z_s is not z_t), s < t, where z_0 is not z_t with the probability `flipped`.

        See `posterior`; of a certain z_0 it is q(z_s | z_t, z_0), in proportion to q(z_t | z_s) q(z_s | z_0), and z_0
        itself for s = 0.

        Args:
          flipped: float32 [...].
          time, after: t and s, int, of shapes that broadcast.

        Returns:
          float32 [...].
        """
        kept, lost = (jnp.asarray(x, jnp.float32) for x in (self.kept, 1 - self.kept))

        def of(share):
            # Both times 2 k_s: early k_s and k_t are 1 but for what float32 has no place for.
            changed = (lost[time] - lost[after]) * (lost[after] + 2 * kept[after] * share)
            same = (kept[time] + kept[after]) * (lost[after] + 2 * kept[after] * (1 - share))
            return changed / (changed + same)

        found = of(flipped) if self.posterior == "product" else flipped * of(1.0) + (1 - flipped) * of(0.0)
        return jnp.where(after > 0, found, flipped)

    def start(self, draws, settings) -> Sample:
        """Even bits; the memory is float32 [B, n, P - 1, C], even numbers from 0 to 1 for the passes."""
        even = jax.scipy.special.ndtr(draws.normal((self.sample_steps, self.channels)))
        return Sample((even[..., 0, :] < 0.5).astype(jnp.int32), None, even[..., 1:, :])

    def refine(self, hidden, draft, at, settings, guidance=None) -> Sample:
        """The bits at the next time, see `JointHead.refine`."""
        logits = self.guided(hidden, guidance) / jnp.maximum(settings.temperature, 1e-6)
        times = jnp.asarray(self.times)
        chance = self.flip(jax.nn.sigmoid(logits), times[at], times[at + 1])
        even = jnp.full(chance.shape, 0.5)
        if self.sample_steps > 1:
            drawn = jnp.take(draft.memory, jnp.minimum(at, self.sample_steps - 2), axis=-2)
            even = jnp.where(times[at + 1] > 0, drawn, even)
        return draft._replace(content=draft.content ^ (even < chance).astype(jnp.int32))
