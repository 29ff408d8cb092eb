"""Vector quantisation onto one codebook (arXiv 1711.00937), with l2-normalised codes of few dimensions
(ViT-VQGAN, arXiv 2110.04627) as LlamaGen uses them, and the entropy loss of arXiv 2310.05737."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from vargen.layers import logical
from vargen.tokenizers import kmeans, usage
from vargen.tokenizers.autoencoder import Autoencoder, check_images, flat
from vargen.tokenizers.distances import distances, nearest, normalised


@dataclasses.dataclass(frozen=True)
class VQ(Autoencoder):
    """One code per latent of each level, of which a plain grid has one.

    Attributes:
      normalise: latents and codes are put on the unit sphere, for the search and for decoding.
      beta: weight of the commitment loss, mean (sg codes - latents)^2.
      codebook_weight: weight of the codebook loss, mean (codes - sg latents)^2.
      entropy_weight, entropy_temperature: of the entropy loss.
      revive_every: updates between two rounds of revival of dead codes; 0 for never.
      revive_until: share of the training after which there is no such round.
      revive_threshold: codes below this fraction of the uniform share are dead.
      kmeans: iterations of Lloyd's algorithm by which its latents make the table after the first update; 0 for none.
      temperature: training draws a latent's code with probabilities softmax(-distance^2 / (2 temperature)), of unit
        vectors the softmax of their products over it (LARP, arXiv 2410.21264); 0 for the nearest.
    """

    normalise: bool
    beta: float
    codebook_weight: float
    entropy_weight: float
    entropy_temperature: float
    revive_every: int
    revive_until: float
    revive_threshold: float
    kmeans: int
    temperature: float

    def init_quantizer(self, key: jax.Array) -> dict:
        """dict(codebook float32 [K, C])."""
        init = logical(jax.nn.initializers.normal(self.channels**-0.5), "vocab", "latent")
        return dict(codebook=init(key, (self.vocab, self.channels), jnp.float32))

    def init_stats(self) -> dict:
        """See `usage.init`."""
        return usage.init(len(self.grid.levels), self.vocab)

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N], level by level. The key is not used."""
        check_images(self, images)
        return self.quantise(params["quantizer"], self.codec.encode(params, images))

    def quantise(self, qparams: dict, features: jax.Array) -> jax.Array:
        """The encoder's features float32 [B, h, w, C] -> codes int32 [B, N]."""
        codes = self.codes(qparams)
        found = [nearest(v, codes).reshape(len(features), -1) for v in self.levels(features)]
        return jnp.concatenate(found, axis=1)

    def levels(self, features: jax.Array) -> list[jax.Array]:
        """What each level quantises of the encoder's features [B, h, w, C]: one float32 [B n, C] per level, on the unit
        sphere if so wished."""
        vectors = [x.reshape(-1, self.channels) for x in self.split(flat(features))]
        return [normalised(x) if self.normalise else x for x in vectors]

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N] -> float32 [B, h, w, C], zero where not known."""
        latents = self.codes(qparams)[content]
        latents = latents if known is None else latents * known[..., None]
        return latents.reshape(-1, *self.codec.grid, self.channels)

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [...] -> float32 [..., C], as they are decoded."""
        return self.codes(qparams)[content]

    def codes(self, qparams: dict) -> jax.Array:
        """The codes as they are decoded: float32 [K, C]."""
        return normalised(qparams["codebook"]) if self.normalise else qparams["codebook"]

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """The straight-through latents, and the losses."""
        through, loss, stats, metrics = self.through(params, stats, images, key)
        latents = jnp.concatenate([flat(x) for x in through], axis=1)
        return latents.reshape(-1, *self.codec.grid, self.channels), loss, stats, metrics

    def through(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """Every level's straight-through latents [B, h, w, C]; the weighted codebook, commitment and further losses,
        averaged over the levels; stats, metrics."""
        check_images(self, images)
        codes, levels = self.codes(params["quantizer"]), self.grid.levels
        through, shares, losses = [], [], []
        weights = dict(codebook=self.codebook_weight, commitment=self.beta)
        given = self.levels(self.codec.encode(params, images))
        for level, (vectors, size) in enumerate(zip(given, levels, strict=True)):
            # Nothing else is drawn here, and no key needed where this isn't.
            own = jax.random.fold_in(key, level) if self.temperature else key
            indices = self.chosen(vectors, codes, own)
            chosen = codes[indices]
            found = dict(
                codebook=jnp.mean(jnp.square(chosen - jax.lax.stop_gradient(vectors))),
                commitment=jnp.mean(jnp.square(jax.lax.stop_gradient(chosen) - vectors)),
            )
            for name, (weight, value) in self.further(params["quantizer"], vectors, codes).items():
                weights[name], found[name] = weight, value
            losses.append(found)
            shares.append(usage.hits(indices, self.vocab))
            straight = vectors + jax.lax.stop_gradient(chosen - vectors)
            through.append(straight.reshape(-1, *size, self.channels))
        metrics = jax.tree.map(lambda *x: sum(x) / len(levels), *losses)
        loss = sum(weight * metrics[name] for name, weight in weights.items())
        stats = usage.update(stats, jnp.stack(shares))
        metrics |= usage.summary(stats, self.grid.level_sizes, self.revive_threshold)
        return through, loss, stats, metrics

    def chosen(self, vectors: jax.Array, codes: jax.Array, key: jax.Array) -> jax.Array:
        """The codes of vectors in training: float32 [M, C], [K, C] -> int32 [M]."""
        if not self.temperature:
            return nearest(vectors, codes)
        squared = distances(*jax.lax.stop_gradient((vectors, codes)))
        return jax.random.categorical(key, -squared / (2 * self.temperature)).astype(jnp.int32)

    def further(self, qparams: dict, vectors: jax.Array, codes: jax.Array) -> dict:
        """Further losses of a level's vectors [B n, C] and codes [K, C], weight and value by name: the entropy's."""
        if not self.entropy_weight:
            return {}
        entropy = entropy_loss(distances(vectors, codes), self.entropy_temperature)
        return dict(entropy=(self.entropy_weight, entropy))

    def revive(
        self,
        params: dict,
        stats: dict,
        images: jax.Array | None,
        key: jax.Array,
        step: jax.Array | int,
        steps: int,
    ) -> tuple[dict, dict]:
        """Every `revive_every` updates, moves dead codes onto latents of `images`; see `kmeans` too."""
        if images is None:
            return params, stats
        if self.kmeans:
            vectors = lambda: self.levels(self.codec.encode(params, images))  # noqa: E731
            params = kmeans.at_first(step, params, vectors, key, self.kmeans, self.normalise)
        if not self.revive_every:
            return params, stats

        def move(params, stats):
            quantizer, vectors = params["quantizer"], self.levels(self.codec.encode(params, images))
            codebook, stats = usage.revive(quantizer["codebook"], stats, vectors, key, self.revive_threshold)
            return dict(params, quantizer=dict(quantizer, codebook=codebook)), stats

        due = usage.due(step, steps, self.revive_every, self.revive_until)
        return jax.lax.cond(due, move, lambda *same: same, params, stats)


def entropy_loss(squared: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """Mean entropy of the soft assignments minus the entropy of their mean: float32 [M, K] -> [].

    Lowest where each vector is sure of its code and all codes are used alike. The soft assignment is
    softmax(-squared / temperature).
    """
    log_p = jax.nn.log_softmax(-squared / temperature, axis=-1)
    p = jnp.exp(log_p)
    mean = jnp.mean(p, axis=0)
    return -jnp.mean(jnp.sum(p * log_p, axis=-1)) + jnp.sum(mean * jnp.log(mean + 1e-5))
