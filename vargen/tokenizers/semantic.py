"""What a tokenizer knows of what pictures show: its features are drawn towards a teacher's while it is trained.

Place by place, by the angle, after a small network of its own (REPA, arXiv 2410.06940, eq. 8; of tokenizers GigaTok,
2504.08736, at a block of the decoder, and VA-VAE, 2501.01423, at the latents); or of whole pictures, each to be told
from the others of its batch (ImageFolder, 2410.01756, section 3.2, after CLIP, 2103.00020), or by the angle beside the
places' (ResTok, 2601.03955). Neither the teacher nor that network is part of the tokenizer.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.layers import Dense
from vargen.tokenizers import teachers
from vargen.tokenizers.distances import normalised
from vargen.tokenizers.teachers import Teacher

GROUP = "tokenizer_training.losses"
LATENTS, TAUGHT = "latents", "taught"
ENCODER = "encoder/"  # before the names of its modules


class Projection(nn.Module):
    """Towards a teacher's features: [..., C] -> float32 [..., features].

    Attributes:
      features: D, the teacher's.
      hidden: width of two layers between, each with a SiLU; 0: one linear map alone.
    """

    features: int
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        for i in range(2 if self.hidden else 0):
            x = nn.silu(Dense(self.hidden, (None, "mlp"), name=f"hidden{i}")(x))
        return Dense(self.features, ("mlp", None), name="out")(x)


@dataclasses.dataclass(frozen=True)
class Semantic:
    """The loss that draws a tokenizer's features towards a teacher's.

    Attributes:
      tokenizer: an `Autoencoder`.
      teacher: frozen.
      kind: "cosine", place by place; or "contrastive", of whole pictures.
      at: "latents", as the decoder gets them; a module of the decoder by its name, such as block1, or of the encoder,
        encoder/merged; or "taught", see `Codec.taught`.
      channels: the first so many channels are drawn; 0: all.
      temperature: of the contrastive loss.
      hidden: of the projection.
      margin: what a cosine may lack of 1 at no cost.
      whole_at: features whose mean is drawn towards the teacher's of whole pictures too, as of `at`; "": none.
    """

    tokenizer: Any
    teacher: Teacher
    kind: str
    at: str
    channels: int
    temperature: float
    hidden: int
    margin: float = 0.0
    whole_at: str = ""

    @property
    def projection(self) -> Projection:
        """What lies between the tokenizer's features and the teacher's."""
        return Projection(self.teacher.channels, self.hidden)

    def init_boxed(self, key: jax.Array) -> dict:
        """The projection's parameters with logical axis names.

        Raises:
          UserError: the decoder has no such module, or none of features by place; more channels than there are.
        """
        t = self.tokenizer
        latents = jax.ShapeDtypeStruct((1, *t.codec.grid, t.channels), jnp.float32)
        images = jax.ShapeDtypeStruct((1, *t.image_size, t.image_channels), jnp.float32)
        given = jax.eval_shape(t.init, key), latents, None, images, key

        def init(key, at):
            own = jax.eval_shape(functools.partial(self.features, at=at), *given)
            return self.projection.init(key, jnp.zeros(own.shape))["params"]

        found = init(key, self.at)
        return dict(found, whole=init(jax.random.fold_in(key, 1), self.whole_at)) if self.whole_at else found

    def features(
        self,
        params: dict,
        latents: jax.Array,
        kept: jax.Array | None,
        images: jax.Array,
        key: jax.Array,
        at: str = "",
    ) -> jax.Array:
        """What is drawn: [B, h, w, C]; arguments as of `__call__`, and `at` as of the class, whose is meant by ""."""
        at = at or self.at
        if at == TAUGHT:
            found = self.tokenizer.codec.taught(params, latents, kept)
        else:
            found = latents if at == LATENTS else self._within(at, params, latents, kept, images, key)
        if self.channels > found.shape[-1]:
            raise UserError(
                f"config field {GROUP}.semantic_channels: expected at most {found.shape[-1]}, found {self.channels}"
            )
        return found[..., : self.channels or None]

    def _within(
        self,
        at: str,
        params: dict,
        latents: jax.Array,
        kept: jax.Array | None,
        images: jax.Array,
        key: jax.Array,
    ) -> jax.Array:
        """What a module of the decoder, or of the encoder, gives, by place."""
        seen, names = [], set()
        codec, name = self.tokenizer.codec, at.removeprefix(ENCODER)
        end = type(codec.decoder if name == at else codec.encoder)

        def look(call, args, kwargs, context):
            result = call(*args, **kwargs)
            if isinstance(context.module.parent, end):  # and not within a loop over layers
                names.add(context.module.name)
                if context.module.name == name and context.method_name == "__call__":
                    seen.append(result)
            return result

        # Either end runs as it does for the reconstruction, so that all of it is compiled once.
        with nn.intercept_methods(look):
            if name == at:
                target = self.tokenizer.target(params, images)
                codec.draft(params, latents, kept, target, key)
            else:
                codec.encode(params, images)
        if not seen:
            field = "semantic_at" if at == self.at else "semantic_whole_at"
            which = "decoder" if name == at else "encoder"
            raise UserError(
                f"config field {GROUP}.{field}: expected {LATENTS} or a module of the {which}, one of "
                f"{', '.join(sorted(names))}, found {name!r}"
            )
        found, (height, width) = seen[0], self.tokenizer.image_size
        if found.ndim == 4:
            return found
        rows = round((found.shape[1] * height / width) ** 0.5)
        if found.ndim != 3 or rows * rows * width != found.shape[1] * height:
            raise UserError(
                f"config field {GROUP}.semantic_at: expected a module whose rows are places of the picture, found "
                f"{at} of shape {list(found.shape)}"
            )
        return found.reshape(len(found), rows, -1, found.shape[-1])

    def __call__(
        self,
        projection: dict,
        frozen: dict,
        params: dict,
        latents: jax.Array,
        kept: jax.Array | None,
        images: jax.Array,
        key: jax.Array,
    ) -> jax.Array:
        """The loss, float32 [].

        Args:
          projection: parameters of `init_boxed`.
          frozen: the teacher's parameters.
          params: the tokenizer's.
          latents: float32 [B, h, w, C], of its bottleneck.
          kept: bool [B, h, w], which of them reach the decoder; None: all.
          images: [B, H, W, C_image] in [-1, 1], of which they are.
          key: that of the decoder's draft, see `Codec.draft`.
        """
        given = params, latents, kept, images, key
        own = self.projection.apply({"params": projection}, self.features(*given))
        said = jax.lax.stop_gradient(self.teacher(frozen, images))
        if self.kind == "contrastive":
            return contrastive(
                normalised(jnp.mean(own, axis=(1, 2))), normalised(said.pooled), self.temperature
            )
        found = cosine(own, said.grid, self.margin)
        if self.whole_at:
            features = self.features(*given, at=self.whole_at)
            own = self.projection.apply({"params": projection["whole"]}, features)
            found = found + cosine(jnp.mean(own, axis=(1, 2)), said.pooled, self.margin)
        return found


def cosine(own: jax.Array, said: jax.Array, margin: float = 0.0) -> jax.Array:
    """What the cosine of the angle between features lacks of 1, or of 1 less a margin, averaged: [].

    Args:
      own: float32 [B, h, w, D], place by place, or [B, D].
      said: float32 [B, h', w', D], the teacher's; interpolated to the same grid; or [B, D].
      margin: lacking no more costs nothing (ResTok's 0.25).
    """
    if said.shape != own.shape:
        said = jax.image.resize(said, own.shape, "linear", antialias=True)
    cosines = jnp.sum(normalised(own) * normalised(said), axis=-1)
    return jnp.mean(jax.nn.relu(1 - margin - cosines)) if margin else 1 - jnp.mean(cosines)


def contrastive(own: jax.Array, said: jax.Array, temperature: float) -> jax.Array:
    """Which of the batch is whose, asked both ways: the mean of two cross-entropies, [].

    Args:
      own, said: float32 [B, D], of the same pictures.
      temperature: the products' divisor.
    """
    logits = jnp.matmul(own, said.T, precision=jax.lax.Precision.HIGHEST) / temperature
    both = [jnp.mean(jnp.diagonal(jax.nn.log_softmax(x, axis=-1))) for x in (logits, logits.T)]
    return -0.5 * (both[0] + both[1])


def build(tokenizer: Any, settings: Any) -> Semantic | None:
    """The loss that `config.tokenizer_training.losses` names; None where its weight is 0.

    Raises:
      UserError: no teacher, one whose options are wrong, or clips.
    """
    if not settings.semantic:
        return None
    if len(tokenizer.image_size) > 2:
        raise UserError(f"config field {GROUP}.semantic: expected 0 for clips, found {settings.semantic:g}")
    return Semantic(
        tokenizer,
        teachers.build(settings.teacher, f"{GROUP}.teacher"),
        settings.semantic_kind,
        settings.semantic_at,
        settings.semantic_channels,
        settings.semantic_temperature,
        settings.semantic_hidden,
        settings.semantic_margin,
        settings.semantic_whole_at,
    )
