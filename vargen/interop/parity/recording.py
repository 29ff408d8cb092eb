"""Parts that hand out what they computed on the way, so that whole samplers can be compared."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.draws import Recorded
from vargen.generator import Generator
from vargen.heads import Categorical, Sample
from vargen.heads.categorical import filtered
from vargen.orders import Order
from vargen.samplers import Sampling, decode


def instead(module: Any, kind: Any) -> Any:
    """A module of `kind`, which is the module's own or one made of it, with the same options."""
    names = [f.name for f in dataclasses.fields(module) if f.init and f.name not in ("parent", "name")]
    return kind(**{name: getattr(module, name) for name in names})


class Logits(Categorical):
    """Its score is all that it knew when it drew: [B, n, R + 2, K], the logits of the R conditions, then those after
    guidance, then after temperature and filters."""

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """As `Categorical.sample`."""
        codes = super().sample(hidden, draws, layout, settings, guidance).content
        kinds = 1 if guidance is None else 3 if isinstance(guidance, tuple) else 2
        each = jnp.split(self(hidden), kinds)
        guided = self.guided(hidden, guidance)
        return Sample(codes, jnp.stack([*each, guided, filtered(guided, settings)], axis=2))


def sampled(
    generator: Generator,
    params: Any,
    labels: Any,
    order: Order,
    sampling: Sampling,
    uniforms: Any = None,
    quantizer: Any = None,
    given: tuple[Any, np.ndarray] | None = None,
    unseen: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A run of the engine in a given order.

    Args:
      generator, params: of a categorical head.
      labels: int32 [B].
      order: slots [B, N], steps [N].
      sampling: the settings.
      uniforms: float32 [B, N], in generation sequence, or None for greedy runs.
      quantizer: the tokenizer's quantiser parameters, where the feed needs them.
      given: contents [B, N] and which slots hold them, bool [N]: the first of the order.
      unseen: of `decode`.

    Returns:
      Codes [B, N], canonical, and the logits [B, N, R + 2, K] in generation sequence.
    """
    draws = None
    if uniforms is not None:
        of_slot = np.empty(uniforms.shape, np.float32)
        np.put_along_axis(of_slot, np.asarray(order.slots), uniforms, axis=1)
        draws = Recorded(uniforms=jnp.asarray(of_slot))
    content, known = (None, None) if given is None else (given[0], tuple(given[1].tolist()))
    args = (
        params,
        quantizer,
        jnp.asarray(labels),
        jnp.asarray(order.slots),
        draws,
        content,
        unseen,
        sampling,
    )
    codes, logits = _run(generator, *args, tuple(np.asarray(order.steps).tolist()), order.given, known)
    return np.asarray(codes), np.asarray(logits)


@functools.partial(jax.jit, static_argnames=("generator", "steps", "before", "known"))
def _run(generator, params, quantizer, labels, slots, draws, content, unseen, sampling, steps, before, known):
    """Codes and logits of `sampled`; runs that differ in numbers alone share the program."""
    recording = dataclasses.replace(generator, head=instead(generator.head, Logits))
    given = None if known is None else (content, np.asarray(known))
    order, key = Order(slots, np.asarray(steps), given=before), jax.random.key(0)
    more = dict(order=order, draws=draws, scored=True, unseen=unseen)
    found = decode(recording, params, quantizer, labels, key, sampling, given, **more)
    return found.content, jnp.take_along_axis(found.score, slots[..., None, None], axis=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def margin(logits: np.ndarray, uniforms: np.ndarray | None = None) -> float:
    """How near a run came to other tokens.

    Args:
      logits: of `sampled`.
      uniforms: None (a greedy run): the smallest gap between the two largest guided logits; or float32 [B, N], in
        generation sequence: the smallest distance of one from a border of the cumulative probabilities.
    """
    if uniforms is None:
        best = np.sort(logits[..., -2, :].astype(np.float64), axis=-1)
        return float(np.min(best[..., -1] - best[..., -2]))
    kept = logits[..., -1, :].astype(np.float64)
    borders = np.cumsum(softmax(kept), axis=-1)
    return float(np.min(np.abs(borders - uniforms[..., None])))
