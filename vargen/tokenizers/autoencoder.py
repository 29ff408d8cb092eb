"""Tokenizers of an encoder, a bottleneck and a decoder: what these share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.slots import Grid, Slot
from vargen.tokenizers import losses
from vargen.tokenizers.codec import Codec


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """A `Tokenizer` around a bottleneck. Parameters are dict(encoder=..., decoder=..., quantizer=...).

    Attributes:
      codec: the encoder and the decoder.
      image_size: (H, W); of clips (T, H, W), whose images are [B, T, H, W, C_image], and latents [B, t, h, w, C] where
        the encoder's grid has frames.
      image_channels: of the images.
      grid: the slots.
      vocab: K, 0 where the content is latents alone.
      channels: C of the latents.
    """

    codec: Codec
    image_size: tuple[int, ...]
    image_channels: int
    grid: Grid
    vocab: int
    channels: int

    trained = True
    fitted = False
    suffix = ""

    @property
    def slot(self) -> Slot:
        """What each slot holds: a code, or a latent."""
        return Slot((), self.vocab) if self.vocab else Slot((self.channels,))

    @property
    def texts(self) -> tuple[int, int] | None:
        """(T, E) of a caption's states that the decoder can read; None where it reads none."""
        return self.codec.texts

    @property
    def lies(self) -> bool:
        """See `Tokenizer`."""
        return self.codec.lies

    @property
    def downsample(self) -> tuple[int, int] | None:
        """Pixels to a latent, down and across; None where the encoder takes images of one size alone."""
        if not self.codec.any_size:
            return None
        (height, width), (h, w) = self.image_size, self.codec.grid
        return height // h, width // w

    def init_boxed(self, key: jax.Array) -> dict:
        """Parameters with logical axis names."""
        key_codec, key_quantizer = jax.random.split(key)
        ends = self.codec.init_boxed(key_codec, self.image_size, self.image_channels)
        return dict(ends, quantizer=self.init_quantizer(key_quantizer))

    def init(self, key: jax.Array) -> dict:
        """Parameters, a plain tree of float32."""
        return nn.meta.unbox(self.init_boxed(key))

    def over(self, levels: tuple[tuple[int, int], ...]) -> Any:
        """The same tokenizer over one grid of another size, (height, width).

        Raises:
          UserError: several, or the encoder takes images of one size alone.
        """
        (last, *more), (old,) = levels[::-1], self.grid.levels
        if more or (last != old and not self.codec.any_size):
            found = ", ".join(f"{h}x{w}" for h, w in levels)
            raise UserError(
                f"sampling.levels: expected {old[0]}x{old[1]}, as the encoder takes no other, found {found}"
            )
        if last == old:
            return self
        size, grid = (
            tuple(n * (x // o) for n, x, o in zip(last, whole, old, strict=True))
            for whole in (self.image_size, self.codec.grid)
        )
        codec = dataclasses.replace(self.codec, grid=grid)
        return dataclasses.replace(self, codec=codec, grid=Grid(levels), image_size=size)

    def first(self, slots: int) -> Any:
        """The same tokenizer of the first so many slots, which are a picture.

        Raises:
          UserError: they are none by themselves, or end within a level.
        """
        ends = np.cumsum(self.grid.level_sizes)
        several = f", or the end of a level: {', '.join(map(str, ends))}" if len(ends) > 1 else ""
        if not self.codec.prefixes:
            raise UserError(
                "config field sampling.tokens: needs a tokenizer whose first tokens are a picture, such as one of "
                f"nested registers, found {slots}"
            )
        if not 1 <= slots <= self.grid.size or (len(ends) > 1 and slots not in ends):
            raise UserError(
                f"config field sampling.tokens: expected 1 to {self.grid.size}{several}, found {slots}"
            )
        levels = self.grid.levels[: int(np.searchsorted(ends, slots)) + 1] if several else ((1, slots),)
        codec = dataclasses.replace(self.codec, grid=(1, slots), slots=levels)
        return dataclasses.replace(self, codec=codec, grid=Grid(levels))

    def sized(self, size: tuple[int, int]) -> Any:
        """The same tokenizer over images of (H, W) pixels, whose levels are as much larger.

        Raises:
          UserError: the encoder takes images of one size alone, or sides that don't divide by its downsampling.
        """
        if size == self.image_size:
            return self
        found, down = "x".join(map(str, size)), self.downsample
        if down is None:
            own = "x".join(map(str, self.image_size))
            raise UserError(
                f"images: expected {own} pixels, as the encoder takes no other but in tiles, found {found}"
            )
        if any(side < d or side % d for side, d in zip(size, down, strict=True)):
            near = "x".join(str(max(round(side / d), 1) * d) for side, d in zip(size, down, strict=True))
            raise UserError(
                f"images: expected sides divisible by the downsampling, {'x'.join(map(str, down))}, found {found} "
                f"pixels; for instance {near}"
            )
        old = self.codec.grid
        last = tuple(side // d for side, d in zip(size, down, strict=True))
        levels = tuple(
            tuple(max(1, round(x * n / o)) for x, n, o in zip(level, last, old, strict=True))
            for level in self.grid.levels
        )
        codec = dataclasses.replace(self.codec, grid=last)
        return dataclasses.replace(self, codec=codec, grid=Grid(levels), image_size=size)

    def check_files(self) -> None:
        """There are none."""

    def fit(self, images: Iterable[np.ndarray]) -> dict:
        """Nothing is learnt without training."""
        raise NotImplementedError

    def files(self, params: dict, content: jax.Array) -> list[bytes]:
        """Contents are no files."""
        return []

    def valid(self, params: dict, content: jax.Array) -> None:
        """All contents could be those of an image."""
        return None

    def init_quantizer(self, key: jax.Array) -> dict:
        """The quantiser's parameters with logical axis names."""
        raise NotImplementedError

    def init_stats(self) -> dict:
        """Statistics that training gathers: arrays that are no parameters."""
        raise NotImplementedError

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] in [-1, 1] -> content [B, N, *slot.shape]."""
        raise NotImplementedError

    def stored(self, params: dict, images: jax.Array) -> jax.Array:
        """The content itself; see `Tokenizer.stored`."""
        return self.encode(params, images)

    def drawn(self, qparams: dict, stored: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """What is stored is the content; see `Tokenizer.drawn`."""
        return stored, None

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """The content as vectors; see `Tokenizer.vectors`."""
        raise NotImplementedError

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Content -> float32 [B, h, w, C], what the decoder takes; see `Tokenizer.latents`."""
        raise NotImplementedError

    def split(self, content: jax.Array) -> list[jax.Array]:
        """[B, N, ...] -> one [B, n, ...] per level."""
        return jnp.split(content, self.grid.level_starts[1:], axis=1)

    def decode(self, params: dict, content: jax.Array, text: jax.Array | None = None) -> jax.Array:
        """Content -> float32 [B, H, W, C_image], not clipped; see `Tokenizer.decode`."""
        latents = self.latents(params["quantizer"], content)
        return (
            self.decode_latents(params, latents) if text is None else self.codec.told(params, latents, text)
        )

    def decode_latents(self, params: dict, latents: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """float32 [B, h, w, C] -> float32 [B, H, W, C_image], not clipped; see `Tokenizer.decode_latents`."""
        if known is None or not self.codec.prefixes:
            return self.codec.decode(params, latents)
        return self.codec.decode(params, latents, known.reshape(-1, *self.codec.grid))

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
        target: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[dict, dict, jax.Array]]:
        """The training loss; see `Tokenizer.loss`. `target` is what is to be decoded, where it isn't the images."""
        key_kept, key_draft = (jax.random.fold_in(key, i) for i in range(2))
        latents, extra, stats, metrics = self.bottleneck(params, stats, images, key)
        kept = self.codec.kept(key_kept, len(images))
        if beside is not None:
            found = beside(params, latents, kept, key_draft)
            extra = extra + sum(settings[name] * value for name, value in found.items())
            metrics |= found
        images = images if target is None else target
        features, weights = self.codec.draft(params, latents, kept, images, key_draft)
        reconstruction = self.codec.last(params, features)
        own = self.codec.beside(params, features, images)
        extra = extra + sum(own.values())
        metrics |= own

        def fit(x):
            return losses.reconstruction(images, x, settings, perceptual, weights)

        if adversarial is None:
            fitting, fit_metrics = fit(reconstruction)
            loss = fitting + extra
            return loss, (stats, metrics | fit_metrics | dict(loss=loss), reconstruction)
        weight = settings.get("adversarial", 0.0) * (step >= settings.get("adversarial_start", 0))
        # Both gradients at the image are taken once, then sent through the decoder together as a linear loss.
        image = jax.lax.stop_gradient(reconstruction)
        (fitting, fit_metrics), fit_gradient = jax.value_and_grad(fit, has_aux=True)(image)
        fooling, fool_gradient = jax.value_and_grad(adversarial)(image)
        if settings.get("adaptive", False):
            adaptive = losses.adaptive_weight(self._last_layer(params, features), fit_gradient, fool_gradient)
            weight = weight * adaptive
            metrics["adaptive_weight"] = adaptive
        pull = jnp.sum(reconstruction * jax.lax.stop_gradient(fit_gradient + weight * fool_gradient))
        loss = extra + pull + jax.lax.stop_gradient(fitting + weight * fooling - pull)
        return loss, (stats, metrics | fit_metrics | dict(loss=loss, adversarial=fooling), reconstruction)

    def _last_layer(self, params: dict, features: jax.Array) -> tuple[Callable, jax.Array]:
        """The reconstruction as a function of the last layer's kernel alone, and that kernel."""
        path = *self.codec.last_name.split("/"), "kernel"

        def apply(kernel):
            return self.codec.last(dict(decoder=_with(params["decoder"], path, kernel)), features)

        return apply, functools.reduce(lambda tree, name: tree[name], path, params["decoder"])

    def target(self, params: dict, images: jax.Array) -> jax.Array:
        """What is to be decoded of images [B, H, W, C_image]: they themselves."""
        return images

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """Encodes for training: latents [B, h, w, C], the quantiser's weighted loss, stats, metrics."""
        raise NotImplementedError

    def revive(
        self,
        params: dict,
        stats: dict,
        images: jax.Array | None,
        key: jax.Array,
        step: jax.Array | int,
        steps: int,
    ) -> tuple[dict, dict]:
        """Nothing; see `Tokenizer.revive`."""
        return params, stats


def _with(tree: dict, path: tuple[str, ...], leaf: jax.Array) -> dict:
    """A nested dict with another leaf at a path."""
    name, *rest = path
    return dict(tree, **{name: _with(tree[name], tuple(rest), leaf) if rest else leaf})


def latent_grid(codec: Codec) -> Grid:
    """A slot for each of the codec's latents."""
    return codec.levels


def check_images(tokenizer: Autoencoder, images: jax.Array) -> None:
    """Raises UserError where the images have another shape than the tokenizer was built for."""
    expected = (*tokenizer.image_size, tokenizer.image_channels)
    if images.shape[1:] != expected:
        raise UserError(f"images: expected [B, {', '.join(map(str, expected))}], found {list(images.shape)}")


def apart(parts: jax.Array) -> jax.Array:
    """Of each of G codes its own c channels: float32 [..., G, c] -> [..., G, G c], zero in the others' channels."""
    own = np.eye(parts.shape[-2], dtype=np.float32)[:, :, None]
    return (parts[..., None, :] * own).reshape(*parts.shape[:-1], -1)


def flat(x: jax.Array) -> jax.Array:
    """[B, h, w, C] -> [B, h * w, C]."""
    return jnp.reshape(x, (x.shape[0], -1, x.shape[-1]))
