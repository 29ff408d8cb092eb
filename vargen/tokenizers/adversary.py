"""The adversarial game of a tokenizer: its discriminator, what both sides minimise, what is kept between updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.clips import as_pictures
from vargen.tokenizers import losses
from vargen.tokenizers.discriminators import Discriminator, augment, spectral

Stats = dict[str, Any]
Frozen = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Adversary:
    """Pure functions over a discriminator's parameters and statistics. Of clips it judges frames, each by itself.

    Statistics are those of its kernels (`spectral`) and the averages of its logits (`lecam`), each where it has them.

    Attributes:
      discriminator: see `vargen.tokenizers.discriminators`.
      settings: `config.tokenizer_training.losses`.
      image_shape: (H, W, C), of pictures or frames.
    """

    discriminator: Discriminator
    settings: Any
    image_shape: tuple[int, int, int]

    def init_boxed(self, key: jax.Array) -> Any:
        """Fresh float32 parameters in their logical boxes."""
        images, shapes = jnp.zeros((1, *self.image_shape)), self.discriminator.frozen()
        frozen = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}
        return self.discriminator.init(key, images, frozen)["params"]

    def init_stats(self) -> Stats:
        """Fresh statistics; {} for none."""
        stats: Stats = {}
        if self.discriminator.spectral:
            key = jax.eval_shape(lambda: jax.random.key(0))
            stats["spectral"] = spectral.start(nn.meta.unbox(jax.eval_shape(self.init_boxed, key)))
        if self.settings.lecam:
            stats["lecam"] = jnp.zeros((2,), jnp.float32)
        return stats

    def fool(self, params: Any, stats: Stats, frozen: Frozen, key: jax.Array, images: jax.Array) -> jax.Array:
        """What the tokenizer minimises, []: its images [B, H, W, C] are to look real, changed by what the key draws."""
        params, _ = self._normalised(params, stats)
        logits = self._logits(params, frozen, self._augmented(key, as_pictures(images)))
        return losses.generator(self.settings.adversarial_kind, logits)

    def loss(
        self,
        params: Any,
        stats: Stats,
        frozen: Frozen,
        key: jax.Array,
        real: jax.Array,
        fake: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        """What the discriminator minimises, []; 0 before `adversarial_start`. And (stats, metrics).

        Args:
          params, stats, frozen: of the discriminator.
          key: for what changes the images (`augment`).
          real, fake: images [B, H, W, C] in [-1, 1] and what became of them.
          step: int32 [], updates done.
        """
        s = self.settings
        began = step >= s.adversarial_start
        params, stats = self._normalised(params, stats)
        real, fake = (
            self._augmented(k, as_pictures(images))
            for k, images in zip(jax.random.split(key), (real, fake), strict=True)
        )
        logits = [self._logits(params, frozen, images) for images in (real, fake)]
        loss = losses.discriminator(s.adversarial_kind, *logits)
        metrics = dict(
            discriminator_loss=loss, logits_real=jnp.mean(logits[0]), logits_fake=jnp.mean(logits[1])
        )
        if s.lecam:
            means = jax.lax.stop_gradient(jnp.stack([metrics["logits_real"], metrics["logits_fake"]]))
            averages = stats["lecam"] + began * (1.0 - s.lecam_decay) * (means - stats["lecam"])
            stats = dict(stats, lecam=averages)
            metrics["lecam"] = losses.lecam(*logits, averages)
            loss += s.lecam * metrics["lecam"]
        if s.r1:

            def penalty(params: Any) -> jax.Array:
                return losses.r1(lambda images: self._logits(params, frozen, images), real)

            metrics["r1"] = jax.lax.cond(
                step % s.r1_every == 0, penalty, lambda _: jnp.zeros((), jnp.float32), params
            )
            loss += 0.5 * s.r1 * s.r1_every * metrics["r1"]
        return loss * began, (stats, metrics)

    def _augmented(self, key: jax.Array, images: jax.Array) -> jax.Array:
        kinds, hole = self.settings.augment, self.settings.augment_hole
        if not kinds:
            return images
        return augment.apply(images, augment.draw(key, len(images), images.shape[1:3], hole), kinds, hole)

    def _normalised(self, params: Any, stats: Stats) -> tuple[Any, Stats]:
        if not self.discriminator.spectral:
            return params, stats
        params, vectors = spectral.normalised(params, stats["spectral"])
        return params, dict(stats, spectral=vectors)

    def _logits(self, params: Any, frozen: Frozen, images: jax.Array) -> jax.Array:
        return self.discriminator.apply({"params": params}, images, frozen)
