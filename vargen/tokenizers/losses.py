"""Losses of tokenizers on images: reconstruction, and the two sides of the adversarial game."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vargen.errors import UserError

KINDS = ("hinge", "vanilla", "non_saturating")


def reconstruction(
    images: jax.Array,
    decoded: jax.Array,
    settings: Mapping[str, Any],
    perceptual: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    weights: jax.Array | None = None,
) -> tuple[jax.Array, dict]:
    """l1 * mean |d| + l2 * mean d^2 + perceptual * mean distance.

    Args:
      images, decoded: float [B, H, W, C].
      settings: the weights "l1", "l2", "perceptual".
      perceptual: (images, decoded) -> [B]; left out where None.
      weights: float32 [B], of the squared errors; None for 1.

    Returns:
      loss [], metrics l1, l2, psnr_db (for a range of 2) and perceptual.

    Raises:
      UserError: the perceptual weight is not 0 and there is no perceptual function.
    """
    difference = decoded.astype(jnp.float32) - images.astype(jnp.float32)
    l1, l2 = jnp.mean(jnp.abs(difference)), jnp.mean(jnp.square(difference))
    metrics = dict(l1=l1, l2=l2, psnr_db=10.0 * jnp.log10(4.0 / jnp.maximum(l2, 1e-10)))
    weighted = l2
    if weights is not None:
        weighted = jnp.mean(weights * jnp.mean(jnp.square(difference), axis=(1, 2, 3)))
        metrics["weighted_l2"] = weighted
    loss = settings.get("l1", 0.0) * l1 + settings.get("l2", 0.0) * weighted
    weight = settings.get("perceptual", 0.0)
    if weight:
        if perceptual is None:
            raise UserError(
                "losses.perceptual: expected a distance, of the file losses.perceptual_weights, or 0, found neither"
            )
        metrics["perceptual"] = jnp.mean(perceptual(images, decoded))
        loss = loss + weight * metrics["perceptual"]
    return loss, metrics


def generator(kind: str, fake: jax.Array) -> jax.Array:
    """What the decoder minimises: logits of its images, any shape -> [].

    "hinge" and "vanilla" push the logits up linearly (as VQGAN does with both), "non_saturating" through
    softplus(-logits) (arXiv 1406.2661).
    """
    _check(kind)
    fake = fake.astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(-fake)) if kind == "non_saturating" else -jnp.mean(fake)


def discriminator(kind: str, real: jax.Array, fake: jax.Array) -> jax.Array:
    """What the discriminator minimises: logits of real and decoded images, any shape -> [].

    "hinge": (max(0, 1 - real) + max(0, 1 + fake)) / 2; the others: (softplus(-real) + softplus(fake)) / 2.
    """
    _check(kind)
    real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)
    if kind == "hinge":
        return 0.5 * (jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake)))
    return 0.5 * (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)))


def adaptive_weight(
    last_layer: tuple[Callable[[jax.Array], jax.Array], jax.Array], fit: jax.Array, fool: jax.Array
) -> jax.Array:
    """The weight that balances the adversarial gradient (VQGAN, arXiv 2012.09841, eq. 7).

    |d fit / d w| / (|d fool / d w| + 1e-4), clipped to 1e4, w the kernel of the decoder's last layer. Costs
    two pullbacks of that layer alone.

    Args:
      last_layer: (kernel -> images, kernel).
      fit, fool: gradients of the reconstruction and of the adversarial loss at the images.

    Returns:
      float32 [], without gradient.
    """
    apply, kernel = last_layer
    _, pullback = jax.vjp(apply, kernel)
    norms = [jnp.linalg.norm(pullback(g)[0].astype(jnp.float32).reshape(-1)) for g in (fit, fool)]
    return jax.lax.stop_gradient(jnp.clip(norms[0] / (norms[1] + 1e-4), 0.0, 1e4))


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise UserError(f"adversarial_kind: expected one of {', '.join(KINDS)}, found {kind!r}")
