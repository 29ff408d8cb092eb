"""Product quantisation: the channels of a latent in groups, each with a table of its own (ImageFolder, arXiv
2410.01756); with one channel a group latent quantisation (QLAE, arXiv 2305.18378)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.layers import logical
from vargen.limits import SHARE, SIZE, Above, AtLeast, Between, OneOf
from vargen.slots import Slot
from vargen.tokenizers import assembly, kmeans, usage
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import Autoencoder, apart, check_images, flat, latent_grid
from vargen.tokenizers.distances import distances, nearest, normalised
from vargen.tokenizers.vq import entropy_loss


@dataclasses.dataclass(frozen=True)
class ProductVQ(Autoencoder):
    """G codes a slot, of C / G channels each, that are decoded side by side.

    Attributes:
      groups: G.
      start: what tables begin with: "normal" numbers of deviation (C / G)^-0.5, or "even" ones from -1/2 to 1/2 in
        every channel.
      normalise: parts of latents and codes are put on the unit sphere, for the search and for decoding.
      beta: weight of the commitment loss, mean (sg codes - latents)^2.
      codebook_weight: weight of the codebook loss, mean (codes - sg latents)^2.
      entropy_weight, entropy_temperature: of the entropy loss, a mean over the groups.
      revive_every: updates between two rounds of revival of dead codes; 0 for never.
      revive_until: share of the training after which there is no such round.
      revive_threshold: codes below this fraction of the uniform share are dead.
      kmeans: iterations of Lloyd's algorithm by which its parts of latents make each table after the first update; 0
        for none.
    """

    groups: int
    start: str
    normalise: bool
    beta: float
    codebook_weight: float
    entropy_weight: float
    entropy_temperature: float
    revive_every: int
    revive_until: float
    revive_threshold: float
    kmeans: int

    @property
    def slot(self) -> Slot:
        """G codes."""
        return Slot((self.groups,), self.vocab)

    @property
    def width(self) -> int:
        """Channels of a code."""
        return self.channels // self.groups

    def init_quantizer(self, key: jax.Array) -> dict:
        """dict(codebook float32 [G, K, C / G])."""
        shape = (self.groups, self.vocab, self.width)

        def even(key, shape, dtype):
            return jnp.broadcast_to(jnp.linspace(-0.5, 0.5, self.vocab, dtype=dtype)[:, None], shape)

        first = even if self.start == "even" else jax.nn.initializers.normal(self.width**-0.5)
        return dict(codebook=logical(first, None, "vocab", "latent")(key, shape, jnp.float32))

    def init_stats(self) -> dict:
        """See `usage.init`, a row for each group."""
        return usage.init(self.groups, self.vocab)

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N, G]. The key is not used."""
        check_images(self, images)
        parts = self.parted(flat(self.codec.encode(params, images)))
        codes = self.nearest(parts.reshape(-1, self.groups, self.width), self.tables(params["quantizer"]))
        return codes.reshape(parts.shape[:-1])

    def parted(self, latents: jax.Array) -> jax.Array:
        """float32 [..., C] -> [..., G, C / G], on the unit sphere if so wished."""
        parts = latents.reshape(*latents.shape[:-1], self.groups, self.width)
        return normalised(parts) if self.normalise else parts

    def tables(self, qparams: dict) -> jax.Array:
        """The codes as they are decoded: float32 [G, K, C / G]."""
        return normalised(qparams["codebook"]) if self.normalise else qparams["codebook"]

    def nearest(self, parts: jax.Array, tables: jax.Array) -> jax.Array:
        """float32 [M, G, C / G], [G, K, C / G] -> int32 [M, G]. No gradient."""
        return jax.vmap(nearest, in_axes=(1, 0), out_axes=1)(parts, tables)

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N, G] -> float32 [B, h, w, C], zero where not known."""
        latents = jnp.sum(self.vectors(qparams, content), axis=-2)
        latents = latents if known is None else latents * known[..., None]
        return latents.reshape(-1, *self.codec.grid, self.channels)

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [..., G] -> float32 [..., G, C], each zero but in its own channels."""
        return apart(self.tables(qparams)[np.arange(self.groups), content])

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """The straight-through latents; the weighted codebook, commitment and entropy losses."""
        check_images(self, images)
        latents = self.parted(self.codec.encode(params, images))
        parts = latents.reshape(-1, self.groups, self.width)
        tables = self.tables(params["quantizer"])
        codes = self.nearest(parts, tables)
        chosen = tables[np.arange(self.groups), codes]
        metrics = dict(
            codebook=jnp.mean(jnp.square(chosen - jax.lax.stop_gradient(parts))),
            commitment=jnp.mean(jnp.square(jax.lax.stop_gradient(chosen) - parts)),
        )
        loss = self.codebook_weight * metrics["codebook"] + self.beta * metrics["commitment"]
        if self.entropy_weight:
            each = jax.vmap(
                lambda x, table: entropy_loss(distances(x, table), self.entropy_temperature), (1, 0)
            )
            metrics["entropy"] = jnp.mean(each(parts, tables))
            loss = loss + self.entropy_weight * metrics["entropy"]
        stats = usage.update(stats, jnp.stack([usage.hits(x, self.vocab) for x in codes.T]))
        metrics |= usage.summary(stats, (1,) * self.groups, self.revive_threshold)
        straight = parts + jax.lax.stop_gradient(chosen - parts)
        return straight.reshape(-1, *self.codec.grid, self.channels), loss, stats, metrics

    def revive(
        self,
        params: dict,
        stats: dict,
        images: jax.Array | None,
        key: jax.Array,
        step: jax.Array | int,
        steps: int,
    ) -> tuple[dict, dict]:
        """Every `revive_every` updates, moves each group's dead codes onto its parts of latents; see `kmeans` too."""
        if images is None:
            return params, stats

        def parts():
            return self.parted(self.codec.encode(params, images)).reshape(-1, self.groups, self.width)

        keys = jax.random.split(key, self.groups)
        if self.kmeans:

            def first(table, parts, key):
                return kmeans.start(table, [parts], key, self.kmeans, self.normalise)

            table = params["quantizer"]["codebook"]
            found = lambda x: jax.vmap(first, (0, 1, 0))(x, parts(), keys)  # noqa: E731
            table = jax.lax.cond(step == 1, found, lambda x: x, table)
            params = dict(params, quantizer=dict(codebook=table))
        if not self.revive_every:
            return params, stats

        def one(table, share, parts, key):
            table, moved = usage.revive(table, dict(share=share[None]), [parts], key, self.revive_threshold)
            return table, moved["share"][0]

        def move(params, stats):
            table = params["quantizer"]["codebook"]
            table, share = jax.vmap(one, (0, 0, 1, 0))(table, stats["share"], parts(), keys)
            return dict(params, quantizer=dict(codebook=table)), dict(stats, share=share)

        due = usage.due(step, steps, self.revive_every, self.revive_until)
        return jax.lax.cond(due, move, lambda *same: same, params, stats)


def build_product_vq(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    vocab: Annotated[int, Between(2, 2**24)] = 4096,
    channels: Annotated[int, SIZE] = 16,
    groups: Annotated[int, Between(1, 64)] = 2,
    start: Annotated[str, OneOf("normal", "even")] = "normal",
    normalise: bool = True,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    codebook_weight: Annotated[float, AtLeast(0)] = 1.0,
    entropy_weight: Annotated[float, AtLeast(0)] = 0.0,
    entropy_temperature: Annotated[float, Above(0)] = 0.01,
    revive_every: Annotated[int, AtLeast(0)] = 100,
    revive_until: Annotated[float, SHARE] = 0.67,
    revive_threshold: Annotated[float, SHARE] = 0.03,
    kmeans: Annotated[int, Between(0, 1000)] = 0,
) -> ProductVQ:
    """The part "product_vq": several codes a slot, each of some channels; options as `ProductVQ`'s attributes.

    Args:
      channels: of a latent.

    Raises:
      UserError: channels that don't divide into groups.
    """
    assembly.channels_of_a_group(channels, groups)
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    return assembly.made(ProductVQ, locals(), grid=latent_grid(codec))


def build_qlae(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    vocab: Annotated[int, Between(2, 2**16)] = 10,
    channels: Annotated[int, Between(1, 64)] = 8,
    beta: Annotated[float, AtLeast(0)] = 0.01,
    codebook_weight: Annotated[float, AtLeast(0)] = 0.01,
) -> ProductVQ:
    """The part "qlae": every number of a latent has a table of its own; options as `ProductVQ`'s attributes.

    Args:
      vocab: values in each table, at first even from -1/2 to 1/2.
      channels: of a latent, a code each.
    """
    return build_product_vq(
        **locals(), groups=channels, start="even", normalise=False, revive_every=0, entropy_weight=0.0
    )
