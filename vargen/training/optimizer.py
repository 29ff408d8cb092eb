"""Optimizers and learning-rate schedules from the settings of a training run."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vargen.errors import UserError


def schedule(settings: Any, peak: float | None = None) -> optax.Schedule:
    """The learning rate as a function of the step.

    Linear over `warmup_steps`: from the share `warmup_start` of the peak at step 0 to the peak at `warmup_steps`, or
    where that is None (step + 1) / warmup_steps of the peak, so that step 0 already moves. Then constant; or, after
    the share `hold` of what is left at the peak, down to `min_learning_rate`: by a half cosine that ends at `steps`
    (Loshchilov & Hutter 2017, eq. 5), or by a line that the last update ends.

    Args:
      settings: `steps`, `learning_rate`, `min_learning_rate`, `warmup_steps`, `warmup_start`, `schedule`, `hold`.
      peak: replaces `learning_rate` (for a second optimizer).
    """
    peak = settings.learning_rate if peak is None else peak
    floor = min(settings.min_learning_rate, peak)
    warmup, steps = settings.warmup_steps, settings.steps

    def rate(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        risen = (step + 1) / max(warmup, 1)
        if settings.warmup_start is not None:
            risen = settings.warmup_start + (1 - settings.warmup_start) * step / max(warmup, 1)
        if settings.schedule == "constant":
            rest = jnp.ones(())
        else:
            linear = settings.schedule == "linear"
            last = steps - 1 if linear else steps
            progress = (step - warmup) / max(last - warmup, 1)
            progress = jnp.clip((progress - settings.hold) / (1 - settings.hold), 0.0, 1.0)
            rest = 1 - progress if linear else 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return jnp.where(step < warmup, peak * risen, floor + (peak - floor) * rest)

    return rate


def weight_decay(settings: Any) -> optax.ScalarOrSchedule:
    """Weight decay, as a function of the step where it ends at another value than it starts with.

    From `weight_decay` at step 0 to `final_weight_decay` at the last, by a half cosine over all `steps` (VAR, official
    code).
    """
    first, last = settings.weight_decay, settings.final_weight_decay
    if last is None or last == first:
        return first

    def decay(step: jax.Array | int) -> jax.Array:
        progress = jnp.clip(jnp.asarray(step, jnp.float32) / max(settings.steps - 1, 1), 0.0, 1.0)
        return last + (first - last) * 0.5 * (1 + jnp.cos(jnp.pi * progress))

    return decay


def matching(params: Any, patterns: Sequence[str]) -> Any:
    """Which parameters patterns mean (those that decay, those that are trained): a tree of booleans.

    Args:
      params: nested dict.
      patterns: as of `fnmatch`, on names such as "blocks/mixer/query/kernel"; of those that fit a name the last
        decides, and one after "!" takes it out.
    """

    def meant(path: Any, _: Any) -> bool:
        fitting = [p for p in patterns if fnmatch.fnmatchcase(_name(path), p.removeprefix("!"))]
        return bool(fitting) and not fitting[-1].startswith("!")

    return jax.tree_util.tree_map_with_path(meant, params)


def check_patterns(params: Any, patterns: Sequence[str], field: str) -> None:
    """Raises UserError where one of the patterns of `matching` fits no parameter, and so says nothing."""
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern.removeprefix("!")):
            raise UserError(
                f"config field {field}: expected patterns of parameters' names, such as {names[0]}, found "
                f"{pattern!r}, which none has"
            )


def _name(path: Any) -> str:
    return "/".join(str(getattr(key, "key", key)) for key in path)


def adamw(settings: Any, peak: float | None = None, whole: bool = False) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW (Loshchilov & Hutter 2019) of the parameters that are trained.

    Args:
      settings: the fields of `schedule` and `weight_decay`, and `b1`, `b2`, `decay` and `trained` (patterns of
        `matching`), `clip_norm` (0: no clipping).
      peak: see `schedule`.
      whole: all parameters are trained, whatever `trained` says.
    """
    clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm > 0 else optax.identity()
    found = optax.chain(
        clip,
        optax.scale_by_adam(b1=settings.b1, b2=settings.b2),
        optax.add_decayed_weights(
            weight_decay(settings), mask=lambda params: matching(params, settings.decay)
        ),
        optax.scale_by_learning_rate(schedule(settings, peak)),
    )
    if whole or all_trained(settings):
        return found
    still = lambda params: jax.tree.map(lambda x: not x, matching(params, settings.trained))  # noqa: E731
    return optax.chain(found, optax.masked(optax.set_to_zero(), still))


def all_trained(settings: Any) -> bool:
    """Whether all parameters are."""
    return tuple(settings.trained) == ("*",)


def held(params: Any, settings: Any) -> Any:
    """The model's parameters, of which those that aren't trained have no gradient."""
    if all_trained(settings):
        return params
    meant = matching(params, settings.trained)
    return jax.tree.map(lambda x, trained: x if trained else jax.lax.stop_gradient(x), params, meant)


OPTIMIZERS = {"adamw": adamw}


def build(settings: Any, networks: Iterable[str]) -> dict[str, optax.GradientTransformation]:
    """One optimizer for each of `networks` ("model", "discriminator", "projection", "prior").

    The discriminator's has a peak of its own, `settings.losses.discriminator_learning_rate`. Which parameters are
    trained (`settings.trained`) is said of the model's alone.
    """
    make = OPTIMIZERS[settings.optimizer]
    return {
        name: make(
            settings,
            settings.losses.discriminator_learning_rate if name == "discriminator" else None,
            whole=name != "model",
        )
        for name in networks
    }
