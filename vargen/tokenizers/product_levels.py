"""Multi-scale residual quantisation of groups of channels, each with tables of its own: several codes a slot at every
level, side by side (ImageFolder, arXiv 2410.01756, section 3.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import Boxed
from vargen.limits import COUNT, SHARE, SIZE, Above, AtLeast, Between
from vargen.slots import Slot
from vargen.tokenizers import assembly, usage
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import apart, check_images
from vargen.tokenizers.multiscale import MultiScaleVQ


@dataclasses.dataclass(frozen=True)
class ProductMultiScaleVQ(MultiScaleVQ):
    """G codes a slot, each of a `MultiScaleVQ` of its own over C / G channels; the other attributes are theirs.

    Attributes:
      groups: G.
      dependency_weight: of the cosine between the means of the first and the last group's latents over the picture, by
        which they say different things.
    """

    groups: int
    dependency_weight: float

    @property
    def slot(self) -> Slot:
        """G codes."""
        return Slot((self.groups,), self.vocab)

    @property
    def branch(self) -> MultiScaleVQ:
        """The tokenizer of one group, of which the quantiser alone is used."""
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(MultiScaleVQ)}
        return MultiScaleVQ(**dict(shared, channels=self.channels // self.groups))

    def init_quantizer(self, key: jax.Array) -> dict:
        """As `MultiScaleVQ`'s, each with a leading axis [G]."""
        each = [self.branch.init_quantizer(k) for k in jax.random.split(key, self.groups)]

        def stacked(*boxes: Boxed) -> Boxed:
            return boxes[0].replace(value=jnp.stack([b.value for b in boxes]), names=(None, *boxes[0].names))

        return jax.tree.map(stacked, *each, is_leaf=lambda x: isinstance(x, nn.Partitioned))

    def init_stats(self) -> dict:
        """See `usage.init`: a row for each level, of each for every group."""
        return usage.init(len(self.grid.levels) * self.groups, self.vocab)

    def parted(self, latents: jax.Array) -> jax.Array:
        """float32 [..., C] -> [G, ..., C / G]."""
        return jnp.moveaxis(latents.reshape(*latents.shape[:-1], self.groups, -1), -2, 0)

    def joined(self, parts: jax.Array) -> jax.Array:
        """The inverse of `parted`."""
        parts = jnp.moveaxis(parts, 0, -2)
        return parts.reshape(*parts.shape[:-2], -1)

    def quantise(self, qparams: dict, latents: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Latents float32 [B, h, w, C] -> codes int32 [B, N, G], f_hat float32 [B, h, w, C]."""
        codes, f_hat = jax.vmap(self.branch.quantise)(qparams, self.parted(latents))
        return jnp.moveaxis(codes, 0, -1), self.joined(f_hat)

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [..., G] -> float32 [..., G, C], each zero but in its own channels."""
        found = jax.vmap(lambda table, codes: table[codes], (0, -1), -2)(qparams["codebook"], content)
        return apart(found)

    def absorb(self, qparams: dict, f_hat: jax.Array, codes: jax.Array, level: int) -> jax.Array:
        """f_hat [B, h, w, C] with the codes int32 [B, n, G] of `level` added."""
        one = jax.vmap(lambda q, f, c: self.branch.absorb(q, f, c, level), (0, 0, -1))
        return self.joined(one(qparams, self.parted(f_hat), codes))

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """As `MultiScaleVQ`'s, losses averaged over the groups; levels are dropped of all groups alike."""
        check_images(self, images)
        parts, kept = self.parted(self.codec.encode(params, images)), self.kept(len(images), key)
        through, metrics, shares = jax.vmap(self.branch.through, (0, 0, None))(
            params["quantizer"], parts, kept
        )
        metrics = {name: jnp.mean(x) for name, x in metrics.items()}
        loss = self.weighed(metrics)
        if self.dependency_weight:
            metrics["dependency"] = dependency(through)
            loss = loss + self.dependency_weight * metrics["dependency"]
        stats = usage.update(stats, jnp.moveaxis(shares, 0, 1).reshape(-1, self.vocab))
        sizes = [size for size in self.grid.level_sizes for _ in range(self.groups)]
        metrics |= usage.summary(stats, sizes, self.revive_threshold)
        return self.joined(through), loss, stats, metrics

    def revived(self, qparams: dict, stats: dict, latents: jax.Array, key: jax.Array) -> tuple[dict, dict]:
        """As `MultiScaleVQ`'s, group by group."""
        shares = jnp.moveaxis(stats["share"].reshape(-1, self.groups, self.vocab), 1, 0)

        def one(qparams, share, latents, key):
            qparams, moved = self.branch.revived(qparams, dict(share=share), latents, key)
            return qparams, moved["share"]

        keys = jax.random.split(key, self.groups)
        qparams, shares = jax.vmap(one)(qparams, shares, self.parted(latents), keys)
        return qparams, dict(stats, share=jnp.moveaxis(shares, 0, 1).reshape(stats["share"].shape))


def dependency(parts: jax.Array) -> jax.Array:
    """The cosine between the means of the first and of the last group over a picture, averaged over pictures: [].

    Args:
      parts: float32 [G, B, h, w, c].
    """
    first, last = (jnp.mean(x, axis=(1, 2)) for x in (parts[0], parts[-1]))
    norms = jnp.sqrt(jnp.sum(jnp.square(first), -1) * jnp.sum(jnp.square(last), -1) + 1e-16)
    return jnp.mean(jnp.sum(first * last, axis=-1) / norms)


def build(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    levels: Annotated[tuple[int | tuple[int, int], ...], SIZE] = (1, 1, 2, 3, 3, 4, 5, 6, 8, 11),
    vocab: Annotated[int, Between(2, 2**24)] = 4096,
    channels: Annotated[int, SIZE] = 64,
    groups: Annotated[int, Between(1, 64)] = 2,
    normalise: bool = True,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    codebook_weight: Annotated[float, AtLeast(0)] = 1.0,
    centre_weight: Annotated[float, AtLeast(0)] = 0.0,
    dependency_weight: Annotated[float, AtLeast(0)] = 0.0,
    entropy_weight: Annotated[float, AtLeast(0)] = 0.0,
    entropy_temperature: Annotated[float, Above(0)] = 0.3,
    phi: Annotated[int, Between(0, 4096)] = 4,
    phi_ratio: Annotated[float, SHARE] = 0.5,
    level_dropout: Annotated[float, SHARE] = 0.1,
    level_dropout_from: Annotated[int, COUNT] = 3,
    revive_every: Annotated[int, AtLeast(0)] = 100,
    revive_until: Annotated[float, SHARE] = 0.67,
    revive_threshold: Annotated[float, SHARE] = 0.03,
) -> ProductMultiScaleVQ:
    """The part "multiscale_product_vq": several codes a slot at several resolutions; the other options as
    `ProductMultiScaleVQ`'s attributes. The defaults are ImageFolder's.

    Args:
      levels: sides, or (height, width) pairs, coarse to fine; the last is the encoder's grid.
      channels: of a latent, all groups' together.

    Raises:
      UserError: channels that don't divide into groups; as of multiscale_vq.
    """
    assembly.channels_of_a_group(channels, groups)
    assembly.levels_that_stay(levels, level_dropout_from)
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    grid = assembly.levels(levels, codec.grid, encoder, image_size)
    return assembly.made(ProductMultiScaleVQ, locals(), grid=grid, kmeans=0)
