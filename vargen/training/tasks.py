"""What is trained: a task gives the step its parameters, its losses and what happens after an update."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax

from vargen.tokenizers import discriminators, prior, semantic
from vargen.tokenizers.adversary import Adversary
from vargen.tokenizers.losses import PERCEPTUAL
from vargen.training import work
from vargen.training.work import Work

Params = dict[str, Any]
Metrics = dict[str, jax.Array]
JUDGE = "discriminator"  # among a tokenizer's statistics


class Task(Protocol):
    """Pure functions over explicit parameters; an object of this kind holds static configuration only.

    `params` is dict(model=..., [discriminator=...], [projection=...], [prior=...]); `stats` is what is tracked but not
    trained; `frozen` is what the task uses without training it, always an argument and never a constant of the compiled
    step; `batch` is a dict of arrays [B, ...].
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
        self,
        params: Params,
        stats: Any,
        frozen: Any,
        aux: Any,
        batch: dict,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """The discriminator's mean loss [], and (stats, metrics); called only where there is one, with the stats that
        `loss` gave."""

    def after_update(
        self, params: Params, stats: Any, frozen: Any, batch: dict, key: jax.Array, step: jax.Array
    ) -> tuple[Params, Any]:
        """Changes to parameters and statistics that no gradient makes; called after each update."""


class TokenizerTask:
    """Trains a tokenizer on batches dict(image=float32 [B, H, W, C], ...), or of clips [B, T, H, W, C].

    Reconstruction, the quantiser's own losses, and where `losses.adversarial` isn't 0 a discriminator with an
    optimizer of its own (VQGAN, arXiv 2012.09841), from step `losses.adversarial_start` on. Both sides of the game
    learn from one forward pass. Where `losses.semantic` isn't 0 a projection of the tokenizer's features is drawn
    towards those of a teacher; where `losses.prior` isn't 0 a small transformer learns to draw its codes. `frozen` is
    dict([perceptual=...], [discriminator=...], [teacher=...]): what the networks that judge and teach don't train.

    Args:
      tokenizer: see `vargen.tokenizers`.
      settings: `config.tokenizer_training`.
      perceptual: (frozen["perceptual"], images, reconstruction) -> distances [B] by the names of their weights
        (`losses.PERCEPTUAL`); needed where one of them isn't 0.
    """

    def __init__(self, tokenizer: Any, settings: Any, perceptual: Callable | None = None):
        self.tokenizer = tokenizer
        self.losses = settings.losses
        self.steps = settings.steps
        self.perceptual = perceptual
        self.semantic = semantic.build(tokenizer, self.losses)
        self.prior = prior.build(tokenizer, self.losses)
        self.adversary = None
        if self.losses.adversarial:
            judge = discriminators.build(self.losses.discriminator)
            frame = (*tokenizer.image_size[-2:], tokenizer.image_channels)
            self.adversary = Adversary(judge, self.losses, frame)

    def init_boxed(self, key: jax.Array) -> Params:
        """Fresh parameters of the tokenizer, and of what is trained beside it."""
        params = dict(model=self.tokenizer.init_boxed(key))
        if self.semantic is not None:
            params["projection"] = self.semantic.init_boxed(jax.random.fold_in(key, 2))
        if self.prior is not None:
            params["prior"] = self.prior.init_boxed(jax.random.fold_in(key, 3))
        if self.adversary is not None:
            params["discriminator"] = self.adversary.init_boxed(jax.random.fold_in(key, 1))
        return params

    def init_stats(self) -> Any:
        """Fresh statistics of the quantiser, and below `JUDGE` of the discriminator where it has some."""
        judge = {} if self.adversary is None else self.adversary.init_stats()
        return _joined(self.tokenizer.init_stats(), judge)

    def work(self) -> Work:
        """The tokenizer's own: without the networks that judge its pictures."""
        return work.of_tokenizer(self.tokenizer)

    def loss(
        self, params: Params, stats: Any, frozen: Any, batch: dict, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics, jax.Array]]:
        """The tokenizer's loss on `batch["image"]`; aux is the reconstruction [B, H, W, C]."""
        extra: dict[str, Any] = {}
        own, judge = _apart(stats)
        if any(self.losses[name] for name in PERCEPTUAL) and self.perceptual is not None:
            extra["perceptual"] = lambda x, y: self.perceptual(frozen["perceptual"], x, y)
        if self.adversary is not None:
            fixed = params["discriminator"], judge, frozen.get("discriminator", {})
            key_changes = jax.random.fold_in(key, 2)
            extra["adversarial"] = functools.partial(self.adversary.fool, *fixed, key_changes)
        if self.semantic is not None or self.prior is not None:
            extra["beside"] = functools.partial(self._beside, params, frozen, batch["image"], step)
        loss, (own, metrics, aux) = self.tokenizer.loss(
            params["model"], own, batch["image"], key, step, self.losses, **extra
        )
        return loss, (_joined(own, judge), metrics, aux)

    def _beside(
        self, params: Params, frozen: Any, images: jax.Array, step: jax.Array, model, latents, kept, key
    ) -> Metrics:
        """Losses on latents [B, h, w, C] by the names of their weights."""
        found = {}
        if self.semantic is not None:
            given = model, latents, kept, images, key
            found["semantic"] = self.semantic(params["projection"], frozen["teacher"], *given)
        if self.prior is not None:
            key_prior = jax.random.fold_in(key, 1)
            found["prior"] = self.prior(params["prior"], model, latents, key_prior, step / self.steps)
        return found

    def discriminator_loss(
        self,
        params: Params,
        stats: Any,
        frozen: Any,
        aux: jax.Array,
        batch: dict,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """Real against decoded images; 0 before `losses.adversarial_start`."""
        own, judge = _apart(stats)
        fixed = params["discriminator"], judge, frozen.get("discriminator", {})
        key = jax.random.fold_in(key, 3)
        loss, (judge, metrics) = self.adversary.loss(*fixed, key, batch["image"], aux, step)
        return loss, (_joined(own, judge), metrics)

    def after_update(
        self, params: Params, stats: Any, frozen: Any, batch: dict, key: jax.Array, step: jax.Array
    ) -> tuple[Params, Any]:
        """Re-seeds dead codes."""
        own, judge = _apart(stats)
        model, own = self.tokenizer.revive(params["model"], own, batch["image"], key, step + 1, self.steps)
        return dict(params, model=model), _joined(own, judge)


def _joined(own: dict, judge: dict) -> dict:
    """Statistics of a tokenizer and of its discriminator; without a place for the latter where it has none."""
    return dict(own, **{JUDGE: judge}) if judge else own


def _apart(stats: dict) -> tuple[dict, dict]:
    return {k: v for k, v in stats.items() if k != JUDGE}, stats.get(JUDGE, {})


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
