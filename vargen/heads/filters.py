"""Top-k and top-p, without a sort."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vargen.kernels import least_of_most


def filter_logits(logits, top_k: int = 0, top_p=None) -> jax.Array:
    """-inf outside the top k, then outside the nucleus (Holtzman et al., arXiv 1904.09751).

    Ties are kept, and what differs by a few roundings is one.

    Args:
      logits: float32 [..., K].
      top_k: how many to keep; 0 keeps all (static).
      top_p: keeps the likeliest codes until their mass reaches top_p, always one; None keeps all. A value of
        1 or more filters nothing.

    Returns:
      float32 [..., K].
    """
    if top_k and top_k < logits.shape[-1]:
        least = least_of_most(logits, jnp.ones(logits.shape, jnp.int32), top_k)
        logits = jnp.where(_below(logits, least), -jnp.inf, logits)
    if top_p is None:
        return logits
    mass = jnp.exp(logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True))
    least = least_of_most(logits, mass, jnp.maximum(top_p, 1e-30))
    return jnp.where(_below(logits, least) & (jnp.asarray(top_p) < 1.0), -jnp.inf, logits)


def _below(logits, least):
    """Which logits [..., K] are less than `least` [..., 1] by more than rounding.

    XLA may compute logits once to search them and once more to compare them, rounded otherwise: the last code to stay
    would be less than itself.
    """
    most = jnp.max(logits, axis=-1, keepdims=True)
    return logits < least - 2.0**-20 * jnp.maximum(jnp.abs(most), jnp.abs(least))
