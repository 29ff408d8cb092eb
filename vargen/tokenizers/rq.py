"""Residual quantisation: several codes a latent, each of what the ones before it left (RQ-VAE, arXiv 2203.01941).

The tables have no gradient: they follow the vectors that are assigned to them (arXiv 1711.00937, appendix A.1), and
rows that hardly any vector is assigned to start anew.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import logical
from vargen.slots import Slot
from vargen.tokenizers import kmeans, usage
from vargen.tokenizers.autoencoder import Autoencoder, check_images, flat
from vargen.tokenizers.distances import distances, nearest
from vargen.tokenizers.residual import Book, followed, gathered, quantise, spread

ALIVE = 0.03  # of the uniform share, for the metrics


@dataclasses.dataclass(frozen=True)
class RQ(Autoencoder):
    """Q codes a slot, whose vectors add up to the latent.

    Attributes:
      depth: Q.
      shared: one table for all depths, or one each.
      cell: (rows, columns) of latents that one slot holds side by side.
      beta: weight of the commitment loss, mean over depths of mean (latent - sg sum of the codes so far)^2.
      decay: gamma of the moving averages.
      restart: whether rows that are hardly used start anew from vectors of the batch.
      kmeans: iterations of Lloyd's algorithm by which what comes to it makes each depth's table after the first update;
        0 for none.
      temperature: a generator learns codes that are drawn anew at each visit from softmax(-distance^2 / temperature),
        and these probabilities; 0: the nearest codes alone.
    """

    depth: int
    shared: bool
    cell: tuple[int, int]
    beta: float
    decay: float
    restart: bool
    kmeans: int
    temperature: float

    @property
    def slot(self) -> Slot:
        """Q codes."""
        return Slot((self.depth,), self.vocab)

    def init_quantizer(self, key: jax.Array) -> dict:
        """dict(codebook float32 [T, K, C], size [T, K], sums [T, K, C]) of T = 1 or Q tables, see `Book`."""
        tables = 1 if self.shared else self.depth
        table = logical(jax.nn.initializers.normal(1.0), None, "vocab", "latent")
        codebook = table(key, (tables, self.vocab, self.channels), jnp.float32)
        size = logical(jax.nn.initializers.zeros, None, "vocab")(key, (tables, self.vocab), jnp.float32)
        return dict(codebook=codebook, size=size, sums=jax.tree.map(jnp.copy, codebook))

    def init_stats(self) -> dict:
        """dict(usage, see `usage.init`, a row for each depth; and the quantiser as the last step left it)."""
        book = jax.eval_shape(lambda: nn.meta.unbox(self.init_quantizer(jax.random.key(0))))
        book = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), book)
        return dict(usage=usage.init(self.depth, self.vocab), quantizer=book)

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N, Q], the nearest. The key is not used."""
        vectors = self.vectors_of(params, images)
        found = quantise(vectors.reshape(-1, self.channels), self.tables(params["quantizer"]))
        return found.codes.reshape(*vectors.shape[:2], -1)

    def stored(self, params: dict, images: jax.Array) -> jax.Array:
        """Codes int32 [B, N, Q], or where they are drawn the vectors float32 [B, N, C]."""
        return self.vectors_of(params, images) if self.temperature else self.encode(params, images)

    def drawn(self, qparams: dict, stored: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Codes int32 [B, N, Q], and where they are drawn the probabilities float32 [B, N, Q, K]."""
        if not self.temperature:
            return stored, None
        keys = jax.random.split(key, self.depth)
        return self.soft(qparams, stored, lambda d, log_p: jax.random.categorical(keys[d], log_p))

    def soft(self, qparams: dict, vectors: jax.Array, choose: Callable) -> tuple[jax.Array, jax.Array]:
        """Codes chosen by their probabilities softmax(-distance^2 / temperature), depth by depth.

        Args:
          qparams: params["quantizer"].
          vectors: float32 [B, N, C].
          choose: (depth, log-probabilities [M, K]) -> codes [M].

        Returns:
          Codes int32 [B, N, Q], probabilities float32 [B, N, Q, K].
        """
        rest, codes, probabilities = vectors.reshape(-1, self.channels), [], []
        for d, table in enumerate(self.tables(qparams)):
            log_p = jax.nn.log_softmax(-distances(rest, table) / self.temperature)
            code = choose(d, log_p).astype(jnp.int32)
            rest = rest - table[code]
            codes.append(code)
            probabilities.append(jnp.exp(log_p))
        found = jnp.stack(codes, axis=1), jnp.stack(probabilities, axis=1)
        return tuple(x.reshape(*vectors.shape[:2], *x.shape[1:]) for x in found)  # type: ignore[return-value]

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [..., Q] -> float32 [..., Q, C]."""
        tables = qparams["codebook"]
        return tables[jnp.zeros(self.depth, int) if self.shared else jnp.arange(self.depth), content]

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N, Q] -> float32 [B, h, w, C], zero where not known."""
        vectors = jnp.sum(self.vectors(qparams, content), axis=-2)
        vectors = vectors if known is None else vectors * known[..., None]
        return spread(vectors.reshape(-1, *self.grid.levels[0], self.channels), self.cell)

    def tables(self, qparams: dict) -> list[jax.Array]:
        """The codes of every depth: float32 [K, C] each."""
        tables = list(qparams["codebook"])
        return tables * self.depth if self.shared else tables

    def books(self, qparams: dict) -> list[Book]:
        """The table of every depth, with what it follows."""
        fields = (qparams[name] for name in Book._fields)
        books = [Book(*one) for one in zip(*fields, strict=True)]
        return books * self.depth if self.shared else books

    def vectors_of(self, params: dict, images: jax.Array) -> jax.Array:
        """What is quantised: [B, H, W, C_image] -> float32 [B, N, C]."""
        check_images(self, images)
        return flat(gathered(self.codec.encode(params, images), self.cell))

    # Training.

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """The straight-through latents and the commitment loss; the stats take the new tables on."""
        latents = self.codec.encode(params, images)
        vectors = flat(gathered(latents, self.cell)).reshape(-1, self.channels)
        # In the first step the stats hold nothing yet.
        begun = stats["usage"]["updates"] > 0
        choice = jax.tree.map(
            lambda new, old: jnp.where(begun, new, old), stats["quantizer"], params["quantizer"]
        )
        keys = jax.random.split(key, self.depth)
        found, books = followed(
            jax.lax.stop_gradient(vectors),
            self.books(jax.lax.stop_gradient(choice)),
            [self.decay] * self.depth,
            lambda d, rest: self.fresh(d, rest, keys[d]) if self.restart else None,
            self.shared,
        )
        commitment = jnp.mean(jnp.square(vectors - found.sums))
        shares = jnp.stack([usage.hits(found.codes[:, d], self.vocab) for d in range(self.depth)])
        used = usage.update(stats["usage"], shares)
        kept = books[:1] if self.shared else books
        quantizer = {name: jnp.stack([getattr(b, name) for b in kept]) for name in Book._fields}
        metrics = dict(commitment=commitment) | usage.summary(used, (1,) * self.depth, ALIVE)
        whole = spread(found.sums[-1].reshape(-1, *self.grid.levels[0], self.channels), self.cell)
        straight = latents + jax.lax.stop_gradient(whole - latents)
        return straight, self.beta * commitment, dict(usage=used, quantizer=quantizer), metrics

    def fresh(self, depth: int, vectors: jax.Array, key: jax.Array) -> jax.Array:
        """Vectors for rows that start anew, drawn from [M, C] without replacement: [K, C].

        Where there are fewer than rows, they are repeated with a little noise.
        """
        key_order, key_noise = jax.random.split(key)
        if (count := len(vectors)) < self.vocab:
            vectors = jnp.tile(vectors, (-(-self.vocab // count), 1))
            noise = jax.random.uniform(key_noise, vectors.shape)
            vectors = vectors + noise * 0.01 / self.channels**0.5
        return vectors[jax.random.permutation(key_order, len(vectors))[: self.vocab]]

    def revive(
        self,
        params: dict,
        stats: dict,
        images: jax.Array | None,
        key: jax.Array,
        step: jax.Array | int,
        steps: int,
    ) -> tuple[dict, dict]:
        """The tables become what the step made of them; after the first one also what `kmeans` makes of them."""
        if self.kmeans and images is not None:
            begin = functools.partial(self.begun, params, images, key)
            quantizer = jax.lax.cond(step == 1, begin, lambda book: book, stats["quantizer"])
            stats = dict(stats, quantizer=quantizer)
        return dict(params, quantizer=stats["quantizer"]), stats

    def begun(self, params: dict, images: jax.Array, key: jax.Array, quantizer: dict) -> dict:
        """The quantiser of tables, each of one depth, by `kmeans.start` of what comes to it."""
        rest, found = self.vectors_of(params, images).reshape(-1, self.channels), []
        for table, own in zip(quantizer["codebook"], jax.random.split(key, self.depth), strict=True):
            table = kmeans.start(table, [rest], own, self.kmeans)
            codes = nearest(rest, table)
            size = jnp.zeros(self.vocab).at[codes].add(1.0)
            found.append(Book(table, size, size[:, None] * table))
            rest = rest - table[codes]
        return {name: jnp.stack([getattr(book, name) for book in found]) for name in Book._fields}


@dataclasses.dataclass(frozen=True)
class FollowedVQ(RQ):
    """One code a slot, whose table follows the vectors: the VQ-VAE of arXiv 1711.00937's appendix A.1."""

    @property
    def slot(self) -> Slot:
        """A code."""
        return Slot((), self.vocab)

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N]. The key is not used."""
        return super().encode(params, images)[..., 0]

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [...] -> float32 [..., C]."""
        return super().vectors(qparams, content[..., None])[..., 0, :]

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N] -> float32 [B, h, w, C], zero where not known."""
        vectors = self.vectors(qparams, content)
        vectors = vectors if known is None else vectors * known[..., None]
        return vectors.reshape(-1, *self.codec.grid, self.channels)
