"""Optimizers and learning-rate schedules from the settings of a training run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def schedule(settings: Any, peak: float | None = None) -> optax.Schedule:
    """The learning rate as a function of the step.

    Linear over `warmup_steps` ((step + 1) / warmup_steps of the peak, so that step 0 already moves), then
    constant, or down to `min_learning_rate` at `steps` by a half cosine (Loshchilov & Hutter 2017, eq. 5) or
    a line.

    Args:
      settings: `steps`, `learning_rate`, `min_learning_rate`, `warmup_steps`, `schedule`.
      peak: replaces `learning_rate` (for a second optimizer).
    """
    peak = settings.learning_rate if peak is None else peak
    floor = min(settings.min_learning_rate, peak)
    warmup, steps = settings.warmup_steps, settings.steps

    def rate(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        ramp = peak * jnp.minimum(1.0, (step + 1) / max(warmup, 1))
        if settings.schedule == "constant":
            return ramp
        progress = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        linear = settings.schedule == "linear"
        rest = 1 - progress if linear else 0.5 * (1 + jnp.cos(jnp.pi * progress))
        decayed = floor + (peak - floor) * rest
        return jnp.where(step < warmup, ramp, decayed)

    return rate


def decay_mask(params: Any) -> Any:
    """Which parameters weight decay touches: a tree of booleans.

    Kernels alone, known by their name as everywhere in Flax. Biases and norms' scales are not decayed,
    whatever layers they are stacked over, nor are tables (embeddings, positions, codebooks): a row that few
    examples visit would shrink between its visits.
    """

    def decayed(path: Any, _: Any) -> bool:
        return "kernel" in str(getattr(path[-1], "key", path[-1]))

    return jax.tree_util.tree_map_with_path(decayed, params)


def adamw(settings: Any, peak: float | None = None) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW (Loshchilov & Hutter 2019) with `decay_mask`.

    Args:
      settings: the fields of `schedule`, and `b1`, `b2`, `weight_decay`, `clip_norm` (0: no clipping).
      peak: see `schedule`.
    """
    clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm > 0 else optax.identity()
    return optax.chain(
        clip,
        optax.scale_by_adam(b1=settings.b1, b2=settings.b2),
        optax.add_decayed_weights(settings.weight_decay, mask=decay_mask),
        optax.scale_by_learning_rate(schedule(settings, peak)),
    )


OPTIMIZERS = {"adamw": adamw}


def build(settings: Any, networks: Iterable[str]) -> dict[str, optax.GradientTransformation]:
    """One optimizer for each of `networks` ("model", "discriminator").

    The discriminator's has a peak of its own, `settings.losses.discriminator_learning_rate`.
    """
    make = OPTIMIZERS[settings.optimizer]
    return {
        name: make(settings, settings.losses.discriminator_learning_rate if name == "discriminator" else None)
        for name in networks
    }
