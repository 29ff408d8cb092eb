"""How probable contents are under a generator: exactly where its order is fixed, in one drawn order where it is not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vargen.draws import Told
from vargen.samplers.engine import decode
from vargen.samplers.settings import Sampling

# What the log-likelihood of a generator is.
EXACT, BOUND, NONE = "exact", "bound", "none"


def kind(generator) -> tuple[str, str]:
    """What can be said of log p(content | label): "exact", "bound" or "none", and why.

    With an order drawn beforehand p is a mean over orders, so that by Jensen the mean over orders of -log p(content |
    order) is no less than -log p: a bound. Where the model chooses its order by what it has drawn (MaskGIT), other
    contents have other orders, and not even that is known.
    """
    if not generator.head.explicit:
        return NONE, "no explicit likelihood"
    if generator.ordering.proposes != "step":
        return NONE, "the order depends on what is drawn"
    if generator.ordering.random_decoding:
        return BOUND, "mean over drawn orders"
    return EXACT, "fixed order"


def in_drawn_order(generator, params, quantizer, content, labels, key, steps: Any = 0) -> jax.Array:
    """float32 [B], nats: log p(content [B, N, ...] | labels, order), in an order for each example drawn by `key`.

    The steps of decoding with the content in the place of what would be drawn: the law that samples have, without
    guidance and filters, at temperature 1, however many slots a step has.

    Args:
      generator: a `Generator` of one segment.
      params, quantizer, labels: as of `decode`.
      content: codes.
      key: PRNG key.
      steps: T, where the order leaves a choice; 0: its own.

    Raises:
      ValueError: there is no such likelihood; see `kind`.
    """
    found, why = kind(generator)
    if found == NONE or len(generator.sequence.segments) > 1:
        raise ValueError(
            f"log_likelihood: needs a head with an explicit likelihood and an order, found {why}"
        )
    sampling = Sampling.make(steps=steps)
    told = Told(content)
    nats: Any = decode(generator, params, quantizer, labels, key, sampling, draws=told, scored=True).score
    exists = generator.tokenizer.slot.exists(content)
    nats = nats.reshape(*content.shape[:2], -1).sum(axis=-1)
    return jnp.sum(nats if exists is None else nats * exists, axis=1)
