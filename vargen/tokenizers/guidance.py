"""Guidance of a decoder that draws: how far its velocity is moved away from one that is told nothing."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from vargen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Guidance:
    """With d = told - free: free + w d (arXiv 2207.12598), or projected (arXiv 2410.02416, algorithm 1).

    Projected, d gains what came before it times a factor, is no longer than a threshold, and the part of it that lies
    along `told`, which makes colours too strong, is left out or made smaller; told + (w - 1) d is what is followed.

    Attributes:
      weight: w; 1: none.
      projected: whether it is.
      momentum: that factor; below 0, so that changes count.
      threshold: the greatest length of d, of a whole picture; 0: any.
      parallel: how much of the part along `told` is left.
    """

    weight: float
    projected: bool = False
    momentum: float = -0.5
    threshold: float = 2.5
    parallel: float = 0.0

    def __call__(self, told: jax.Array, free: jax.Array, before: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The velocity that is followed, and what comes before the next one.

        Args:
          told, free: velocities float32 [B, H, W, C], of a network that is told and of one that isn't.
          before: float32 [B, H, W, C]: what the last call gave, zeros in the first.
        """
        difference = told - free
        if not self.projected:
            return free + self.weight * difference, before
        before = difference = difference + self.momentum * before
        if self.threshold:
            difference = difference * jnp.minimum(
                1.0, self.threshold / jnp.maximum(_length(difference), 1e-12)
            )
        direction = told / jnp.maximum(_length(told), 1e-12)
        along = jnp.sum(difference * direction, axis=(1, 2, 3), keepdims=True) * direction
        return told + (self.weight - 1.0) * (difference - (1.0 - self.parallel) * along), before


def _length(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, 1, 1, 1]."""
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=(1, 2, 3), keepdims=True))


def check_guidance(guidance: float, forget_rate: float) -> None:
    """Raises UserError for guidance by a decoder that no example has taught to draw without registers."""
    if guidance != 1.0 and not forget_rate:
        raise UserError(
            "config field tokenizer.encoder.decoder.guidance: expected 1 where forget_rate is 0, found "
            f"{guidance:g}"
        )


def forgotten(key: jax.Array, rate: float, count: int) -> jax.Array | None:
    """Whose registers an example is drawn without in training, bool [count]; None where `rate` is 0."""
    return jax.random.bernoulli(key, rate, (count,)) if rate else None
