"""What is trained: a task gives the step its parameters, its losses and what happens after an update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vargen.tokenizers import losses
from vargen.training import work
from vargen.training.work import Work

Params = dict[str, Any]
Metrics = dict[str, jax.Array]


class Task(Protocol):
    """Pure functions over explicit parameters; an object of this kind holds static configuration only.

    `params` is dict(model=..., [discriminator=...]); `frozen` is what the task uses without training it,
    always an argument and never a constant of the compiled step; `batch` is a dict of arrays [B, ...].
    """

    def init_boxed(self, key: jax.Array) -> Params:
        """Fresh float32 parameters in their logical boxes."""

    def init_stats(self) -> Any:
        """Fresh statistics; {} for none."""

    def work(self) -> Work:
        """How much work an update is, by example."""

    def loss(
        self, params: Params, stats: Any, frozen: Any, batch: dict, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics, Any]]:
        """The mean loss over the batch [], and (stats, metrics, aux); aux goes to `discriminator_loss`."""

    def discriminator_loss(
        self, params: Params, aux: Any, batch: dict, step: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The discriminator's mean loss [] and metrics; called only where there is a discriminator."""

    def after_update(
        self, params: Params, stats: Any, frozen: Any, batch: dict, key: jax.Array, step: jax.Array
    ) -> tuple[Params, Any]:
        """Changes to parameters and statistics that no gradient makes; called after each update."""


class TokenizerTask:
    """Trains a tokenizer on batches dict(image=float32 [B, H, W, C], ...).

    Reconstruction, the quantiser's own losses, and where `losses.adversarial` isn't 0 a patch discriminator
    with an optimizer of its own (VQGAN, arXiv 2012.09841), from step `losses.adversarial_start` on. Both
    sides of the game learn from one forward pass.

    Args:
      tokenizer: see `vargen.tokenizers`.
      settings: `config.tokenizer_training`.
      perceptual: (frozen["perceptual"], images, reconstruction) -> distances [B]; needed where
        `losses.perceptual` isn't 0.
    """

    def __init__(self, tokenizer: Any, settings: Any, perceptual: Callable | None = None):
        self.tokenizer = tokenizer
        self.losses = settings.losses
        self.steps = settings.steps
        self.perceptual = perceptual
        self.discriminator = None
        if self.losses.adversarial:
            from vargen.tokenizers.discriminator import Discriminator

            self.discriminator = Discriminator(
                width=self.losses.discriminator_width, layers=self.losses.discriminator_layers
            )

    def init_boxed(self, key: jax.Array) -> Params:
        """Fresh parameters of the tokenizer, and of the discriminator where there is one."""
        params = dict(model=self.tokenizer.init_boxed(key))
        if self.discriminator is not None:
            t = self.tokenizer
            images = jnp.zeros((1, *t.image_size, t.image_channels))
            variables = self.discriminator.init(jax.random.fold_in(key, 1), images)
            params["discriminator"] = variables["params"]
        return params

    def init_stats(self) -> Any:
        """Fresh statistics of the quantiser."""
        return self.tokenizer.init_stats()

    def work(self) -> Work:
        """The tokenizer's own: without the networks that judge its pictures."""
        return work.of_tokenizer(self.tokenizer)

    def loss(
        self, params: Params, stats: Any, frozen: Any, batch: dict, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics, jax.Array]]:
        """The tokenizer's loss on `batch["image"]`; aux is the reconstruction [B, H, W, C]."""
        extra = {}
        if self.losses.perceptual and self.perceptual is not None:
            extra["perceptual"] = lambda x, y: self.perceptual(frozen["perceptual"], x, y)
        if self.discriminator is not None:
            extra["adversarial"] = lambda images: losses.generator(
                self.losses.adversarial_kind, self._judge(params, images)
            )
        return self.tokenizer.loss(params["model"], stats, batch["image"], key, step, self.losses, **extra)

    def discriminator_loss(
        self, params: Params, aux: jax.Array, batch: dict, step: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Real against decoded images; 0 before `losses.adversarial_start`."""
        real, fake = self._judge(params, batch["image"]), self._judge(params, aux)
        loss = losses.discriminator(self.losses.adversarial_kind, real, fake)
        metrics = dict(discriminator_loss=loss, logits_real=jnp.mean(real), logits_fake=jnp.mean(fake))
        return loss * (step >= self.losses.adversarial_start), metrics

    def after_update(
        self, params: Params, stats: Any, frozen: Any, batch: dict, key: jax.Array, step: jax.Array
    ) -> tuple[Params, Any]:
        """Re-seeds dead codes."""
        model, stats = self.tokenizer.revive(
            params["model"], stats, batch["image"], key, step + 1, self.steps
        )
        return dict(params, model=model), stats

    def _judge(self, params: Params, images: jax.Array) -> jax.Array:
        return self.discriminator.apply({"params": params["discriminator"]}, images)


class GeneratorTask:
    """Trains a generator on batches dict(label=int32 [B], and content or image).

    `frozen` is the tokenizer's parameters. `content` is what `vargen tokenize` stored (`Tokenizer.stored`), from which
    codes or latents are drawn anew at every visit; with it, `frozen` needs the "quantizer" alone. `image` (float32
    [B, H, W, C]) is encoded on the fly.

    Args:
      generator: see `vargen.generator`; it drops labels itself.
      tokenizer: see `vargen.tokenizers`.
      steps: updates of the whole training, which orders may change in the course of; None: they are as at its end.
    """

    def __init__(self, generator: Any, tokenizer: Any, steps: int | None = None):
        self.generator = generator
        self.tokenizer = tokenizer
        self.steps = steps

    def init_boxed(self, key: jax.Array) -> Params:
        """Fresh parameters of the generator."""
        return dict(model=self.generator.init_boxed(key))

    def init_stats(self) -> Any:
        """None are kept."""
        return {}

    def work(self) -> Work:
        """The generator's own: without the tokenizer, which encodes what isn't stored."""
        return work.of_generator(self.generator, self.tokenizer)

    def loss(
        self, params: Params, stats: Any, frozen: Any, batch: dict, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics, None]]:
        """The generator's loss; there is no aux."""
        content_key, loss_key = jax.random.split(key)
        content, soft = self.content(frozen, batch, content_key)
        progress = None if self.steps is None else step / self.steps
        loss, metrics = self.generator.loss(
            params["model"], frozen.get("quantizer"), content, batch["label"], loss_key, True, progress, soft
        )
        return loss, (stats, metrics, None)

    def content(self, frozen: Any, batch: dict, key: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """What the slots hold, [B, N, *slot.shape], and how probable the codes are; see `Tokenizer.drawn`."""
        stored = batch["content"] if "content" in batch else self.tokenizer.stored(frozen, batch["image"])
        return self.tokenizer.drawn(frozen.get("quantizer"), jax.lax.stop_gradient(stored), key)

    def after_update(
        self, params: Params, stats: Any, frozen: Any, batch: dict, key: jax.Array, step: jax.Array
    ) -> tuple[Params, Any]:
        """Nothing to do."""
        return params, stats
