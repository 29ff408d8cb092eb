"""Multi-scale residual quantisation (VAR, arXiv 2404.02905, algorithms 1 and 2).

Every level quantises what the levels before it left of the latents, averaged down to its own grid; its codes
are spread over the full grid by cubic interpolation and a convolution phi, and added to the running sum
f_hat.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vargen.layers import logical
from vargen.tokenizers import kmeans, resample, usage
from vargen.tokenizers.autoencoder import Autoencoder, check_images, flat
from vargen.tokenizers.distances import distances, nearest, normalised
from vargen.tokenizers.tokenizer import Leveled
from vargen.tokenizers.vq import entropy_loss


@dataclasses.dataclass(frozen=True)
class MultiScaleVQ(Autoencoder, Leveled):
    """Codes at several resolutions, coarse to fine, one codebook for all.

    Attributes:
      normalise: the search goes by the angle (the codes are added as they are).
      beta: weight of the commitment loss.
      codebook_weight: weight of the codebook loss.
      centre_weight: weight of the square of the latents' mean over batch and grid. Nothing else holds that mean,
        and a constant of which the decoder needs no code is all that a level of one slot has codes for then.
      entropy_weight: of the entropy loss, by which each level spreads over all codes.
      entropy_temperature: of that loss, in units of the level's mean squared distance to the nearest code: latents
        are as large as training makes them.
      phi: number of convolutions: 1 for all levels, 0 for one per level, else shared by neighbouring levels.
      phi_ratio: phi(x) = (1 - ratio) x + ratio conv(x); 0 for the identity.
      level_dropout: share of a batch's examples in training that are decoded of their first few levels alone
        (ImageFolder, arXiv 2410.01756, section 3.3); their numbers are drawn evenly.
      level_dropout_from: the fewest of these levels.
      revive_every: updates between two rounds of revival of dead codes; 0 for never.
      revive_until: share of the training after which there is no such round.
      revive_threshold: codes below this fraction of the uniform share at every level are dead.
      kmeans: iterations of Lloyd's algorithm by which its levels' residuals make the table after the first update; 0
        for none.
    """

    normalise: bool
    beta: float
    codebook_weight: float
    centre_weight: float
    entropy_weight: float
    entropy_temperature: float
    phi: int
    phi_ratio: float
    level_dropout: float
    level_dropout_from: int
    revive_every: int
    revive_until: float
    revive_threshold: float
    kmeans: int

    def init_quantizer(self, key: jax.Array) -> dict:
        """dict(codebook [K, C], and unless phi_ratio is 0 phi_kernel [P, 3, 3, C, C], phi_bias [P, C])."""
        key_codebook, key_phi = jax.random.split(key)
        codebook = logical(jax.nn.initializers.normal(self.channels**-0.5), "vocab", "latent")
        params = dict(codebook=codebook(key_codebook, (self.vocab, self.channels), jnp.float32))
        if self.phi_ratio:
            count = self.phi or len(self.grid.levels)
            kernel = jax.nn.initializers.variance_scaling(
                1 / 3, "fan_in", "uniform", in_axis=(1, 2, 3), batch_axis=0
            )
            kernel = logical(kernel, None, None, None, None, "latent")
            bias = logical(jax.nn.initializers.zeros, None, "latent")
            params["phi_kernel"] = kernel(key_phi, (count, 3, 3, self.channels, self.channels), jnp.float32)
            params["phi_bias"] = bias(key_phi, (count, self.channels), jnp.float32)
        return params

    def init_stats(self) -> dict:
        """See `usage.init`."""
        return usage.init(len(self.grid.levels), self.vocab)

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N], level by level. The key is not used."""
        check_images(self, images)
        return self.quantise(params["quantizer"], self.codec.encode(params, images))[0]

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N] -> f_hat float32 [B, h, w, C], of the levels that are known whole."""
        f_hat = self.start(content.shape[0])
        for level, codes in enumerate(self.split(content)):
            added = self.absorb(qparams, f_hat, codes, level)
            if known is not None:
                whole = jnp.all(self.split(known)[level], axis=1)[:, None, None, None]
                added = jnp.where(whole, added, f_hat)
            f_hat = added
        return f_hat

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [...] -> float32 [..., C]."""
        return qparams["codebook"][content]

    # The running sum, which the feed of a generator is made of.

    def start(self, batch: int) -> jax.Array:
        """f_hat before the first level: zeros float32 [batch, h, w, C]."""
        return jnp.zeros((batch, *self.codec.grid, self.channels), jnp.float32)

    def absorb(self, qparams: dict, f_hat: jax.Array, codes: jax.Array, level: int) -> jax.Array:
        """f_hat [B, h, w, C] with the codes int32 [B, n] of `level` added."""
        return f_hat + self._spread(qparams, codes, level)

    def resample(self, f_hat: jax.Array, level: int) -> jax.Array:
        """f_hat [B, h, w, C] averaged down to the grid of `level`: float32 [B, n, C]."""
        return flat(resample.area(f_hat, self.grid.levels[level]))

    def quantise(self, qparams: dict, latents: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Latents float32 [B, h, w, C] -> codes int32 [B, N], f_hat float32 [B, h, w, C]."""
        f_hat, codes = jnp.zeros_like(latents), []
        for level in range(len(self.grid.levels)):
            codes.append(self._search(qparams, self.resample(latents - f_hat, level)))
            f_hat = f_hat + self._spread(qparams, codes[-1], level)
        return jnp.concatenate(codes, axis=1), f_hat

    # Training.

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """The straight-through sum of all levels, the losses averaged over them, and that of the latents' mean."""
        check_images(self, images)
        latents = self.codec.encode(params, images)
        through, metrics, shares = self.through(params["quantizer"], latents, self.kept(len(images), key))
        stats = usage.update(stats, shares)
        loss = self.weighed(metrics)
        return (
            through,
            loss,
            stats,
            metrics | usage.summary(stats, self.grid.level_sizes, self.revive_threshold),
        )

    def kept(self, batch: int, key: jax.Array) -> jax.Array | None:
        """int32 [B], how many levels of each example count; None where all do."""
        dropped = int(batch * self.level_dropout)
        if not dropped:
            return None
        levels = len(self.grid.levels)
        drawn = jax.random.randint(key, (dropped,), self.level_dropout_from, levels + 1)
        return jnp.concatenate([drawn, jnp.full((batch - dropped,), levels)])

    def through(self, qparams: dict, latents: jax.Array, kept: jax.Array | None) -> tuple:
        """What training sees of latents.

        Args:
          qparams: params["quantizer"].
          latents: float32 [B, h, w, C].
          kept: of `kept`.

        Returns:
          The straight-through sum float32 [B, h, w, C]; the losses without their weights, by name, each an average over
          levels and over the examples that have them; the share of each code float32 [levels, K].
        """
        fixed = jax.lax.stop_gradient(latents)
        f_hat = whole = jnp.zeros_like(latents)
        codebook, commitment, entropy, shares = 0.0, 0.0, 0.0, []
        levels = len(self.grid.levels)
        for level in range(levels):
            rest = self.resample(latents - jax.lax.stop_gradient(whole), level)
            codes = self._search(qparams, rest)
            whole = whole + self._spread(qparams, codes, level)
            # What is left for the next level is of all examples, whether they have this one or not.
            has = None if kept is None else level < kept
            f_hat = whole if has is None else jnp.where(has[:, None, None, None], whole, f_hat)
            codebook += _mean(jnp.square(f_hat - fixed), has) / levels
            commitment += _mean(jnp.square(jax.lax.stop_gradient(f_hat) - latents), has) / levels
            shares.append(usage.hits(codes, self.vocab))
            if self.entropy_weight:
                squared = self._distances(qparams, rest.reshape(-1, self.channels))
                error = jax.lax.stop_gradient(jnp.mean(jnp.min(squared, axis=1)))
                temperature = self.entropy_temperature * jnp.maximum(error, 1e-12)
                entropy += entropy_loss(squared, temperature) / levels
        metrics = dict(codebook=codebook, commitment=commitment)
        metrics["centre"] = jnp.mean(jnp.square(jnp.mean(latents, axis=(0, 1, 2))))
        if self.entropy_weight:
            metrics["entropy"] = entropy
        return latents + jax.lax.stop_gradient(f_hat - latents), metrics, jnp.stack(shares)

    def weighed(self, metrics: dict) -> jax.Array:
        """The losses of `through` with their weights, []."""
        loss = self.codebook_weight * metrics["codebook"] + self.beta * metrics["commitment"]
        loss = loss + self.centre_weight * metrics["centre"]
        return loss + self.entropy_weight * metrics["entropy"] if self.entropy_weight else loss

    def revive(
        self,
        params: dict,
        stats: dict,
        images: jax.Array | None,
        key: jax.Array,
        step: jax.Array | int,
        steps: int,
    ) -> tuple[dict, dict]:
        """Every `revive_every` updates, moves dead codes onto residuals of `images`, as many from each level; see
        `kmeans` too."""
        if images is None:
            return params, stats

        if self.kmeans:

            def residuals():
                return self.residuals(params["quantizer"], self.codec.encode(params, images))

            params = kmeans.at_first(step, params, residuals, key, self.kmeans, self.normalise)
        if not self.revive_every:
            return params, stats

        def move(params, stats):
            latents = self.codec.encode(params, images)
            quantizer, stats = self.revived(params["quantizer"], stats, latents, key)
            return dict(params, quantizer=quantizer), stats

        due = usage.due(step, steps, self.revive_every, self.revive_until)
        return jax.lax.cond(due, move, lambda *same: same, params, stats)

    def residuals(self, qparams: dict, latents: jax.Array) -> list[jax.Array]:
        """What each level quantises of latents [B, h, w, C]: float32 [B n, C] per level."""
        f_hat, vectors = jnp.zeros_like(latents), []
        for level in range(len(self.grid.levels)):
            rest = self.resample(latents - f_hat, level)
            vectors.append(rest.reshape(-1, self.channels))
            f_hat = f_hat + self._spread(qparams, self._search(qparams, rest), level)
        return vectors

    def revived(self, qparams: dict, stats: dict, latents: jax.Array, key: jax.Array) -> tuple[dict, dict]:
        """The quantiser's parameters and the statistics after a round of revival."""
        vectors = self.residuals(qparams, latents)
        codebook, stats = usage.revive(qparams["codebook"], stats, vectors, key, self.revive_threshold)
        return dict(qparams, codebook=codebook), stats

    def _search(self, qparams, rest):
        """Vectors [B, n, C] -> the codes int32 [B, n]."""
        vectors, codebook = rest.reshape(-1, self.channels), qparams["codebook"]
        if self.normalise:
            vectors, codebook = normalised(vectors), normalised(codebook)
        return nearest(vectors, codebook).reshape(rest.shape[:2])

    def _distances(self, qparams, vectors):
        if self.normalise:
            return distances(normalised(vectors), normalised(qparams["codebook"]))
        return distances(vectors, qparams["codebook"])

    def _spread(self, qparams, codes, level):
        """Codes int32 [B, n] of `level` -> what they add to f_hat, float32 [B, h, w, C]."""
        vectors = qparams["codebook"][codes].reshape(-1, *self.grid.levels[level], self.channels)
        vectors = resample.bicubic(vectors, self.codec.grid)
        if not self.phi_ratio:
            return vectors
        which = phi_table(len(self.grid.levels), self.phi)[level]
        kernel, bias = qparams["phi_kernel"][which], qparams["phi_bias"][which]
        convolved = jax.lax.conv_general_dilated(
            vectors,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        return (1.0 - self.phi_ratio) * vectors + self.phi_ratio * (convolved + bias)


def _mean(x: jax.Array, has: jax.Array | None) -> jax.Array:
    """The mean of [B, ...] over the examples that count, bool [B] (None: all); 0 of none."""
    if has is None:
        return jnp.mean(x)
    each = jnp.mean(x.reshape(len(x), -1), axis=1)
    return jnp.sum(jnp.where(has, each, 0.0)) / jnp.maximum(jnp.sum(has), 1)


def phi_table(levels: int, count: int) -> tuple[int, ...]:
    """Which phi each level uses.

    The level's place in [0, 1] goes to the nearest of `count` ticks, as the published models were trained.
    There are exact ties, so this must be float64: float32 decides some of them otherwise.

    Args:
      levels: number of levels.
      count: number of convolutions; 0 for as many as levels.
    """
    count = count or levels
    margin = 1 / 3 / count if count == 4 else 1 / 2 / count
    ticks = np.linspace(margin, 1 - margin, count)
    return tuple(int(np.argmin(np.abs(ticks - level / max(levels - 1, 1)))) for level in range(levels))
