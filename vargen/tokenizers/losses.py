"""Losses of tokenizers on images: reconstruction, and the two sides of the adversarial game."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vargen.clips import as_pictures
from vargen.errors import UserError
from vargen.tokenizers.similarity import ms_ssim

KINDS = ("hinge", "vanilla", "non_saturating")
PERCEPTUAL = ("perceptual", "gram")  # weights of distances by a network's features


def reconstruction(
    images: jax.Array,
    decoded: jax.Array,
    settings: Mapping[str, Any],
    perceptual: Callable[[jax.Array, jax.Array], Mapping[str, jax.Array]] | None = None,
    weights: jax.Array | None = None,
) -> tuple[jax.Array, dict]:
    """l1 * mean |d| + l2 * mean d^2 + ms_ssim * (1 - mean MS-SSIM) + perceptual, gram * mean distances.

    Args:
      images, decoded: float [B, H, W, C]; clips [B, T, H, W, C], of which similarity and the networks see frames.
      settings: the weights "l1", "l2", "ms_ssim", "perceptual", "gram".
      perceptual: (images, decoded) -> [B] by the names of the last two weights; left out where None.
      weights: float32 [B], of the squared errors; None for 1.

    Returns:
      loss [], metrics l1, l2, psnr_db (for a range of 2), and of the others those with a weight.

    Raises:
      UserError: a perceptual weight is not 0 and there is no perceptual function.
    """
    difference = decoded.astype(jnp.float32) - images.astype(jnp.float32)
    l1, l2 = jnp.mean(jnp.abs(difference)), jnp.mean(jnp.square(difference))
    metrics = dict(l1=l1, l2=l2, psnr_db=10.0 * jnp.log10(4.0 / jnp.maximum(l2, 1e-10)))
    weighted = l2
    if weights is not None:
        weighted = jnp.mean(weights * jnp.mean(jnp.square(difference), axis=(1, 2, 3)))
        metrics["weighted_l2"] = weighted
    loss = settings.get("l1", 0.0) * l1 + settings.get("l2", 0.0) * weighted
    if weight := settings.get("ms_ssim", 0.0):
        metrics["ms_ssim"] = jnp.mean(ms_ssim(as_pictures(images), as_pictures(decoded)))
        loss = loss + weight * (1.0 - metrics["ms_ssim"])
    named = {name: weight for name in PERCEPTUAL if (weight := settings.get(name, 0.0))}
    if named:
        if perceptual is None:
            raise UserError(
                f"losses.{next(iter(named))}: expected a distance, of the file losses.perceptual_weights, or 0, "
                "found neither"
            )
        distances = perceptual(as_pictures(images), as_pictures(decoded))
        for name, weight in named.items():
            metrics[name] = jnp.mean(distances[name])
            loss = loss + weight * metrics[name]
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


def lecam(real: jax.Array, fake: jax.Array, averages: jax.Array) -> jax.Array:
    """LeCam regularisation (arXiv 2104.03310, equation 6; the authors' code, which counts one side alone).

    mean max(0, real - a_fake)^2 + mean max(0, a_real - fake)^2: logits stay near the averages of the other side's.

    Args:
      real, fake: logits, any shape.
      averages: float32 [2], moving averages of the means of real and fake logits; without gradient.

    Returns:
      float32 [].
    """
    of_real, of_fake = jax.lax.stop_gradient(averages)
    above = jax.nn.relu(real.astype(jnp.float32) - of_fake), jax.nn.relu(of_real - fake.astype(jnp.float32))
    return sum(jnp.mean(jnp.square(x)) for x in above)


def r1(judge: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """The gradient penalty R1 (arXiv 1801.04406, equation 9) without its factor: mean |d judge / d image|^2, [].

    Args:
      judge: images [B, H, W, C] -> logits; those of an image are summed.
      images: real ones.
    """
    gradient = jax.grad(lambda images: jnp.sum(judge(images)))(images)
    return jnp.mean(jnp.sum(jnp.square(gradient.astype(jnp.float32)), axis=(1, 2, 3)))


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
