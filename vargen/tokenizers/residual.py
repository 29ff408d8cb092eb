"""Residual quantisation of vectors, and tables of codes that follow what they are given (arXiv 2203.01941)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vargen.tokenizers.distances import nearest

EPS = 1e-5  # of the smoothed sizes
LEAST = 1.0  # of a row's size: below, it starts anew


class Book(NamedTuple):
    """A table of codes, and what it is the quotient of.

    Attributes:
      codebook: float32 [K, C].
      size: float32 [K], moving average of how many vectors a row was assigned (N).
      sums: float32 [K, C], that of their sum (M).
    """

    codebook: jax.Array
    size: jax.Array
    sums: jax.Array


class Quantised(NamedTuple):
    """Vectors [M, C] after quantisation.

    Attributes:
      codes: int32 [M, Q].
      sums: float32 [Q, M, C], what the first 1, 2, ... Q codes add up to.
    """

    codes: jax.Array
    sums: jax.Array


def quantise(
    vectors: jax.Array, tables: Sequence[jax.Array], update: Callable[..., Any] | None = None
) -> Quantised:
    """k_d = argmin |r_(d-1) - e_k|, r_d = r_(d-1) - e_(k_d), from r_0 = z (equations 3 and 4).

    Args:
      vectors: float32 [M, C].
      tables: of every depth, float32 [K, C].
      update: (depth, residuals [M, C], codes [M]), called after the search of each depth; where it changes `tables`,
        the next depth searches what it has made of them.
    """
    rest, total, codes, sums = vectors, jnp.zeros_like(vectors), [], []
    for d in range(len(tables)):
        codebook = tables[d]
        code = nearest(rest, codebook)
        if update is not None:
            update(d, rest, code)
        total = total + codebook[code]
        rest = rest - codebook[code]
        codes.append(code)
        sums.append(total)
    return Quantised(jnp.stack(codes, axis=1), jnp.stack(sums))


def followed(
    vectors: jax.Array,
    books: Sequence[Book],
    decays: Sequence[float],
    fresh: Callable[..., Any],
    shared: bool,
) -> tuple[Quantised, list[Book]]:
    """Quantisation in training, in which each depth's table follows the residuals that it is given.

    A shared table moves once for every depth, so that the next one searches what this one has made of it; codes are
    looked up in the table that was searched.

    Args:
      vectors: float32 [M, C].
      books, decays: the table of every depth and its gamma.
      fresh: (depth, residuals [M, C]) -> float32 [K, C] or None, see `moved`.
      shared: whether all tables are one.

    Returns:
      What came of it, and the tables after it.
    """
    books, tables = list(books), [book.codebook for book in books]

    def update(d: int, rest: jax.Array, codes: jax.Array) -> None:
        book = moved(books[d], rest, codes, decays[d], fresh(d, rest))
        for i in range(len(books)) if shared else (d,):
            books[i], tables[i] = book, book.codebook

    return quantise(vectors, tables, update), books


def moved(
    book: Book, vectors: jax.Array, codes: jax.Array, decay: float, fresh: jax.Array | None = None
) -> Book:
    """The table after a step of its moving averages.

    N <- gamma N + (1 - gamma) n, M <- gamma M + (1 - gamma) m; a row of N below 1 takes a fresh vector as M, and N = 1;
    codes are M / (total (N + eps) / (total + K eps)), total = sum N.

    Args:
      book: the table.
      vectors: float32 [M, C].
      codes: int32 [M], the row that each was assigned.
      decay: gamma.
      fresh: float32 [K, C] of `RQ.fresh`, or None for no restarts.
    """
    vocab = len(book.size)
    size = decay * book.size + (1 - decay) * jnp.zeros(vocab).at[codes].add(1.0)
    sums = decay * book.sums + (1 - decay) * jnp.zeros_like(book.sums).at[codes].add(vectors)
    if fresh is not None:
        dead = size < LEAST
        sums = jnp.where(dead[:, None], fresh, sums)
        size = jnp.where(dead, 1.0, size)
    total = jnp.sum(size)
    smooth = total * (size + EPS) / (total + vocab * EPS)
    return Book(sums / smooth[:, None], size, sums)


def gathered(latents: jax.Array, cell: tuple[int, int]) -> jax.Array:
    """float32 [B, h, w, C] -> [B, h / r, w / s, r s C], cells of (r, s) latents row by row."""
    batch, height, width, channels = latents.shape
    r, s = cell
    x = latents.reshape(batch, height // r, r, width // s, s, channels).swapaxes(2, 3)
    return x.reshape(batch, height // r, width // s, r * s * channels)


def spread(vectors: jax.Array, cell: tuple[int, int]) -> jax.Array:
    """The inverse of `gathered`."""
    batch, height, width, channels = vectors.shape
    r, s = cell
    x = vectors.reshape(batch, height, width, r, s, channels // (r * s)).swapaxes(2, 3)
    return x.reshape(batch, height * r, width * s, -1)
