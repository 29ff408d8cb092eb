"""Codes that nobody trains: the centres of a teacher's features, found by k-means (DiGIT, arXiv 2410.12490).

What is trained is a decoder that makes pictures of them. Parameters hold the teacher's, so that nothing else is needed
to encode.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.limits import COUNT, Between
from vargen.tokenizers import assembly, teachers
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import latent_grid
from vargen.tokenizers.codec import Codec
from vargen.tokenizers.distances import nearest, normalised
from vargen.tokenizers.teachers import Teacher
from vargen.tokenizers.vq import VQ

PLACE = "tokenizer.teacher"
DINOV2 = types.MappingProxyType(dict(name="dinov2"))  # the teacher where a config names none
POINTS = 64  # features for each code that k-means looks at, at most
CHUNK = 4096  # features whose distances to all codes are in memory at once


@dataclasses.dataclass(frozen=True)
class TaughtCodec(Codec):
    """A decoder, and a teacher in the place of the encoder.

    Attributes:
      teacher: frozen; its features are the latents.
    """

    teacher: Teacher = dataclasses.field(kw_only=True)

    def init_boxed(self, key: jax.Array, image_size: tuple[int, int], image_channels: int) -> dict:
        """dict(encoder, decoder) of parameters with logical axis names; the encoder's are random, see `KMeans.fit`."""
        key_encoder, key_decoder = jax.random.split(key)
        latents = jnp.zeros((1, *self.grid, self.latent_channels))
        return dict(
            encoder=self.teacher.init_boxed(key_encoder),
            decoder=self.decoder.init(key_decoder, latents)["params"],
        )

    def encode(self, params: dict, images: jax.Array) -> jax.Array:
        """[B, H, W, C_image] -> float32 [B, h, w, D]."""
        return self.teacher(params["encoder"], images).grid


@dataclasses.dataclass(frozen=True)
class KMeans(VQ):
    """Each place's nearest centre. Neither the teacher nor the centres have a gradient.

    Attributes:
      iterations: of k-means.
    """

    iterations: int

    fitted = True

    def check_files(self) -> None:
        """Raises UserError without the teacher's file."""
        self.codec.teacher.load()

    def fit(self, images: Iterable[np.ndarray]) -> dict:
        """The parameters that the decoder's training starts from: the teacher's, of its file, and the centres.

        Args:
          images: batches float32 [b, H, W, C_image] in [-1, 1].

        Raises:
          UserError: no file, or not the teacher's; fewer features than codes.
        """
        params = self.init(jax.random.key(0))
        params["encoder"] = self.codec.teacher.load()
        features = jax.jit(lambda params, x: self.levels(self.codec.encode(params, x))[0])
        vectors = some((np.asarray(features(params, x)) for x in images), POINTS * self.vocab)
        if len(vectors) < self.vocab:
            raise UserError(
                f"config field tokenizer.vocab: expected at most as many as features of the first pictures, "
                f"{len(vectors)}, found {self.vocab}"
            )
        codebook = k_means(vectors, self.vocab, jax.random.key(1), self.iterations, self.normalise)
        return dict(params, quantizer=dict(codebook=codebook))


def some(batches: Iterable[np.ndarray], count: int) -> np.ndarray:
    """At most `count` of the vectors of all batches [m, D], each as likely as any other: float32 [M, D]."""
    rng, kept, ranks = np.random.default_rng(0), np.zeros((0, 0), np.float32), np.zeros(0)
    for vectors in batches:
        ranks = np.concatenate([ranks, rng.random(len(vectors))])
        kept = np.concatenate([kept.reshape(-1, vectors.shape[1]), vectors])
        if len(kept) > count:
            least = np.argpartition(ranks, count)[:count]
            ranks, kept = ranks[least], kept[least]
    return kept


def k_means(
    vectors: np.ndarray, codes: int, key: jax.Array, iterations: int, unit: bool = False
) -> jax.Array:
    """The centres of clusters by Lloyd's algorithm, from vectors drawn at random.

    A cluster without vectors moves onto one drawn at random.

    Args:
      vectors: float32 [M, D].
      codes: K, at most M.
      key: for the draws.
      iterations: rounds of assigning vectors and moving centres.
      unit: centres stay on the unit sphere (spherical k-means).

    Returns:
      float32 [K, D].
    """
    points, count = jnp.asarray(vectors, jnp.float32), len(vectors)
    size = min(CHUNK, count)
    padded = jnp.pad(points, ((0, -count % size), (0, 0))).reshape(-1, size, points.shape[1])

    def on_sphere(x):
        return normalised(x) if unit else x

    @jax.jit
    def move(centres, key):
        assigned = jax.lax.map(lambda x: nearest(x, centres), padded).reshape(-1)[:count]
        sums = jax.ops.segment_sum(points, assigned, codes)
        hits = jnp.bincount(assigned, length=codes)[:, None]
        drawn = points[jax.random.randint(key, (codes,), 0, count)]
        return on_sphere(jnp.where(hits > 0, sums / jnp.maximum(hits, 1), drawn))

    centres = on_sphere(points[jax.random.choice(key, count, (codes,), replace=False)])
    for i in range(iterations):
        centres = move(centres, jax.random.fold_in(key, i))
    return centres


def build(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    teacher: Mapping[str, Any] = DINOV2,
    encoder: Mapping[str, Any] = CONV,
    vocab: Annotated[int, Between(2, 2**24)] = 8192,
    normalise: bool = False,
    iterations: Annotated[int, COUNT] = 25,
) -> KMeans:
    """The part "teacher_kmeans": the centres of a teacher's features; the other options as `KMeans`'s attributes.

    Args:
      teacher: the part that features are of.
      encoder: the part whose decoder is trained; of its encoder nothing is used but the grid, which is the teacher's.
      vocab: centres.

    Raises:
      UserError: the decoder's grid is not the teacher's.
    """
    found = teachers.build(teacher, PLACE, dtype)
    ends = assembly.codec(encoder, image_size, image_channels, found.channels, 1, dtype)
    if ends.grid != found.grid:
        grids = ["x".join(map(str, grid)) for grid in (found.grid, ends.grid)]
        raise UserError(
            f"config field tokenizer.encoder: expected one of {grids[0]} latents, as {PLACE} of side {found.side} has, "
            f"found {grids[1]}"
        )
    codec = TaughtCodec(
        found.network,
        ends.decoder,
        ends.grid,
        found.channels,
        ends.last_name,
        teacher=found,
    )
    still = dict(
        kmeans=0,
        beta=0.0,
        codebook_weight=0.0,
        entropy_weight=0.0,
        entropy_temperature=1.0,
        revive_every=0,
        revive_until=0.0,
        revive_threshold=0.03,
        temperature=0.0,
    )
    return assembly.made(KMeans, locals(), grid=latent_grid(codec), channels=found.channels, **still)
