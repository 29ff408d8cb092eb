"""A tokenizer of another's latents: pictures go through an autoencoder that is trained already, and its latents are
what the tokenizer writes and draws (FlexTok, arXiv 2502.13967, and Semanticist, 2503.08685, over a VAE's)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import hub, paths, weights_file
from vargen.errors import UserError
from vargen.slots import Slot
from vargen.tokenizers.autoencoder import Autoencoder, check_images
from vargen.tokenizers.kl import KL


@dataclasses.dataclass(frozen=True)
class Within(Autoencoder):
    """A tokenizer whose images are latents. Parameters are the inner one's, and dict(outer=...) beside them.

    Attributes:
      inner: the tokenizer, of latents [B, h, w, C].
      outer: the autoencoder, which is not trained.
      reads: what the inner one encodes: "latents", or "pixels", of which it decodes latents.
      weights: the file of its parameters, as vargen writes them.
    """

    inner: Autoencoder
    outer: KL
    reads: str
    weights: str

    fitted = True

    @property
    def slot(self) -> Slot:
        """The inner one's."""
        return self.inner.slot

    @property
    def texts(self) -> None:
        """None: captions don't reach the inner decoder."""
        return None

    @property
    def downsample(self) -> None:
        """Images are of one size alone."""
        return None

    def init_boxed(self, key: jax.Array) -> dict:
        """Parameters with logical axis names; the outer's are random, see `fit`."""
        return self.inner.init_boxed(key) | dict(outer=self.outer.init_boxed(jax.random.fold_in(key, 1)))

    def init_quantizer(self, key: jax.Array) -> dict:
        """The inner one's."""
        return self.inner.init_quantizer(key)

    def init_stats(self) -> dict:
        """The inner one's."""
        return self.inner.init_stats()

    def check_files(self) -> None:
        """Raises UserError without the outer autoencoder's file."""
        self._outer()

    def fit(self, images: Iterable[np.ndarray]) -> dict:
        """The parameters that training starts from: the outer's are those of its file.

        Raises:
          UserError: no file, or not of such an autoencoder.
        """
        return dict(self.init(jax.random.key(0)), outer=jax.tree.map(jnp.asarray, self._outer()))

    def _outer(self) -> dict:
        field = "config field tokenizer.weights"
        if not self.weights:
            raise UserError(f"{field}: expected the file of the outer autoencoder's parameters, found none")
        file = hub.weights(self.weights, "tokenizer.weights")
        if not paths.is_file(file):
            raise UserError(f"{field}: expected a file, found none at {self.weights}")
        found = weights_file.read(file)
        expected = dict(weights_file.flatten(jax.eval_shape(self.outer.init, jax.random.key(0))))
        given = dict(weights_file.flatten(found))
        wrong = [
            name
            for name in sorted(expected.keys() | given.keys())
            if np.shape(expected.get(name, ())) != np.shape(given.get(name, ()))
            or (name in expected) != (name in given)
        ]
        if wrong:
            raise UserError(
                f"{field}: expected the parameters of tokenizer.outer, found others in {self.weights}: {wrong[0]}"
            )
        return found

    def target(self, params: dict, images: jax.Array) -> jax.Array:
        """[B, H, W, C_image] -> the outer's latents, scaled: float32 [B, h, w, C]. No gradient."""
        check_images(self, images)
        content = self.outer.encode(params["outer"], images)
        return jax.lax.stop_gradient(content.reshape(-1, *self.outer.codec.grid, self.outer.channels))

    def read(self, params: dict, images: jax.Array) -> jax.Array:
        """What the inner one encodes of images [B, H, W, C_image]: their latents, or they themselves."""
        return images if self.reads == "pixels" else self.target(params, images)

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] in [-1, 1] -> content [B, N, *slot.shape]."""
        return self.inner.encode(params, self.read(params, images), key)

    def stored(self, params: dict, images: jax.Array) -> jax.Array:
        """The inner one's, see `Tokenizer.stored`."""
        return self.inner.stored(params, self.read(params, images))

    def drawn(self, qparams: dict, stored: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """The inner one's, see `Tokenizer.drawn`."""
        return self.inner.drawn(qparams, stored, key)

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """The inner one's, see `Tokenizer.vectors`."""
        return self.inner.vectors(qparams, content)

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """The inner one's, see `Tokenizer.latents`."""
        return self.inner.latents(qparams, content, known)

    def decode_latents(self, params: dict, latents: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """The inner one's latents -> float32 [B, H, W, C_image], not clipped; see `Tokenizer.decode_latents`."""
        images = self.inner.decode_latents(params, latents, known)
        return self.outer.decode(params["outer"], images.reshape(len(images), -1, self.outer.channels))

    def first(self, slots: int) -> Within:
        """The same tokenizer of the first so many slots, see `Autoencoder.first`."""
        inner = self.inner.first(slots)
        return dataclasses.replace(self, inner=inner, codec=inner.codec, grid=inner.grid)

    def loss(
        self,
        params: dict,
        stats: dict,
        images: jax.Array,
        key: jax.Array,
        step: jax.Array,
        settings: Mapping[str, Any],
        *,
        perceptual: Callable[[jax.Array, jax.Array], Mapping[str, jax.Array]] | None = None,
        adversarial: Callable[[jax.Array], jax.Array] | None = None,
        beside: Callable[..., Mapping[str, jax.Array]] | None = None,
    ) -> tuple[jax.Array, tuple[dict, dict, jax.Array]]:
        """The inner one's on latents, whose reconstruction it gives; see `Tokenizer.loss`.

        Raises:
          UserError: losses of what sees pictures.
        """
        for name, found in (("perceptual", perceptual), ("adversarial", adversarial)):
            if found is not None:
                raise UserError(
                    f"config field tokenizer_training.losses.{name}: expected 0 for a tokenizer of latents, found "
                    f"{settings[name]:g}"
                )
        latents = self.target(params, images)
        images = images if self.reads == "pixels" else latents
        return self.inner.loss(params, stats, images, key, step, settings, beside=beside, target=latents)

    def revive(
        self,
        params: dict,
        stats: dict,
        images: jax.Array | None,
        key: jax.Array,
        step: jax.Array | int,
        steps: int,
    ) -> tuple[dict, dict]:
        """The inner one's; see `Tokenizer.revive`."""
        images = None if images is None else self.read(params, images)
        return self.inner.revive(params, stats, images, key, step, steps)
