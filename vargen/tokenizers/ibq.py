"""Index backpropagation quantisation (IBQ, arXiv 2412.02692): a code is chosen by the greatest product with a latent,
and what is decoded has a gradient with respect to all codes, through the softmax of the products."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vargen.layers import logical
from vargen.limits import SIZE, Above, AtLeast, Between
from vargen.tokenizers import assembly, usage
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import Autoencoder, check_images, flat, latent_grid

ALIVE = 0.03  # of the uniform share, for the metrics


@dataclasses.dataclass(frozen=True)
class IBQ(Autoencoder):
    """One code per latent, by products with all codes.

    Attributes:
      beta: weight of the commitment loss, mean (sg chosen - latents)^2.
      codebook_weight: weight of the codebook loss, mean (chosen - sg latents)^2.
      through_weight: weight of the loss mean (decoded - latents)^2, whose gradient reaches all codes.
      entropy_weight: of the entropy loss H(codes of a latent) - diversity H(their mean over latents), in nats.
      diversity: see there.
      entropy_temperature: of the softmax over a latent's products there.
    """

    beta: float
    codebook_weight: float
    through_weight: float
    entropy_weight: float
    diversity: float
    entropy_temperature: float

    def init_quantizer(self, key: jax.Array) -> dict:
        """dict(codebook float32 [K, C])."""
        init = logical(jax.nn.initializers.normal(self.channels**-0.5), "vocab", "latent")
        return dict(codebook=init(key, (self.vocab, self.channels), jnp.float32))

    def init_stats(self) -> dict:
        """See `usage.init`."""
        return usage.init(1, self.vocab)

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N]. The key is not used."""
        check_images(self, images)
        latents = flat(self.codec.encode(params, images))
        return jnp.argmax(self.logits(params["quantizer"], latents), axis=-1).astype(jnp.int32)

    def logits(self, qparams: dict, latents: jax.Array) -> jax.Array:
        """Products with the codes: float32 [..., C] -> [..., K]."""
        # Full precision: TPUs would otherwise multiply in bfloat16 and choose other codes.
        return jnp.matmul(latents, qparams["codebook"].T, precision=jax.lax.Precision.HIGHEST)

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N] -> float32 [B, h, w, C], zero where not known."""
        latents = qparams["codebook"][content]
        latents = latents if known is None else latents * known[..., None]
        return latents.reshape(-1, *self.codec.grid, self.channels)

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [...] -> float32 [..., C], as they are decoded."""
        return qparams["codebook"][content]

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """(1[chosen] + p - sg p) E [B, h, w, C] with p = softmax(latents E^T); the weighted losses; stats, metrics."""
        check_images(self, images)
        latents, codebook = self.codec.encode(params, images), params["quantizer"]["codebook"]
        vectors = latents.reshape(-1, self.channels)
        logits = self.logits(params["quantizer"], vectors)
        indices = jnp.argmax(logits, axis=-1)
        chosen, soft = codebook[indices], jax.nn.softmax(logits, axis=-1)
        stop = jax.lax.stop_gradient
        # What the softmax changes is zero here, but not its gradient; nor that of all codes by what it weighs.
        through = chosen + (soft - stop(soft)) @ codebook
        metrics = dict(
            codebook=jnp.mean(jnp.square(chosen - stop(vectors))),
            commitment=jnp.mean(jnp.square(stop(chosen) - vectors)),
            through=jnp.mean(jnp.square(through - vectors)),
        )
        loss = self.codebook_weight * metrics["codebook"] + self.beta * metrics["commitment"]
        loss = loss + self.through_weight * metrics["through"]
        if self.entropy_weight:
            sure, used = entropies(logits / self.entropy_temperature)
            metrics["entropy"] = sure - self.diversity * used
            loss = loss + self.entropy_weight * metrics["entropy"]
        stats = usage.update(stats, usage.hits(indices, self.vocab)[None])
        metrics |= usage.summary(stats, (self.grid.size,), ALIVE)
        return through.reshape(latents.shape), loss, stats, metrics


def entropies(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean entropy of laws, and that of their mean: float32 [M, K] -> two numbers [], in nats."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    p = jnp.exp(log_p)
    mean = jnp.mean(p, axis=0)
    return -jnp.mean(jnp.sum(p * log_p, axis=-1)), -jnp.sum(mean * jnp.log(mean + 1e-5))


def build_ibq(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    vocab: Annotated[int, Between(2, 2**24)] = 16384,
    channels: Annotated[int, SIZE] = 256,
    beta: Annotated[float, AtLeast(0)] = 1.0,
    codebook_weight: Annotated[float, AtLeast(0)] = 0.25,
    through_weight: Annotated[float, AtLeast(0)] = 1.0,
    entropy_weight: Annotated[float, AtLeast(0)] = 0.05,
    diversity: Annotated[float, AtLeast(0)] = 1.0,
    entropy_temperature: Annotated[float, Above(0)] = 0.01,
) -> IBQ:
    """The part "ibq": codes by products, all with a gradient; options as `IBQ`'s attributes (the defaults are the
    authors')."""
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    return assembly.made(IBQ, locals(), grid=latent_grid(codec))
