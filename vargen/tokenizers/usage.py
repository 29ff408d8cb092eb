"""How often codes are used, and what becomes of those that are not.

A codebook trained by gradients alone collapses: a code that wins no vector gets no gradient and never moves.
Here the share of hits of every code is followed by a moving average, and codes whose share has all but
vanished are moved onto vectors that the codebook is asked to represent (random restarts, Jukebox, arXiv
2005.00341). The first such round is at the same time an initialisation from data. Drawing the vectors in
proportion to their error, as k-means++ does, was tried on digits and gained nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

DECAY = 0.99  # of the moving average; a running mean until it has seen 1 / (1 - DECAY) batches


def init(levels: int, vocab: int) -> dict:
    """dict(share float32 [levels, K], updates int32 [])."""
    return dict(share=jnp.zeros((levels, vocab), jnp.float32), updates=jnp.zeros((), jnp.int32))


def hits(codes: jax.Array, vocab: int) -> jax.Array:
    """int32 codes of any shape -> float32 [K], the share of each code; sums to 1."""
    return jnp.zeros((vocab,), jnp.float32).at[codes.reshape(-1)].add(1.0 / codes.size)


def update(stats: dict, share: jax.Array) -> dict:
    """Takes in one batch's `share` float32 [levels, K]."""
    updates = stats["updates"] + 1
    rate = jnp.maximum(1.0 / updates, 1.0 - DECAY)
    return dict(share=stats["share"] + rate * (share - stats["share"]), updates=updates)


def summary(stats: dict, sizes: tuple[int, ...], threshold: float) -> dict:
    """Scalars: the share of codes alive, and the perplexity of the code distribution over all levels."""
    share = overall(stats, sizes)
    entropy = -jnp.sum(share * jnp.log(share + 1e-12))
    return dict(codebook_use=jnp.mean(share > threshold / share.size), perplexity=jnp.exp(entropy))


def overall(stats: dict, sizes: tuple[int, ...]) -> jax.Array:
    """float32 [K]: the share of each code among all slots; `sizes` are the slots per level."""
    weights = jnp.asarray(sizes, jnp.float32) / sum(sizes)
    return weights @ stats["share"]


def due(stats: dict, every: int, until: int) -> jax.Array:
    """bool []: whether this update ends with a round of revival; `until` 0 for no end."""
    updates = stats["updates"]
    turn = (updates > 0) & (updates % every == 0)
    return turn & (updates <= until) if until else turn


def revive(
    codebook: jax.Array,
    stats: dict,
    vectors: jax.Array,
    key: jax.Array,
    sizes: tuple[int, ...],
    threshold: float,
) -> tuple[jax.Array, dict]:
    """Moves the codes whose share is below threshold / K onto vectors drawn at random.

    Args:
      codebook: float32 [K, C].
      stats: of `init`.
      vectors: float32 [M, C], what the codebook was asked to represent.
      key: for the draw, without replacement.
      sizes: slots per level.
      threshold: a code is dead below this fraction of the uniform share 1 / K.

    Returns:
      The codebook, and the statistics with new shares for the codes that were moved.
    """
    vocab, count = codebook.shape[0], min(codebook.shape[0], vectors.shape[0])
    key_draw, key_share = jax.random.split(key)
    dead = overall(stats, sizes) < threshold / vocab
    rank = jnp.cumsum(dead) - 1  # the n-th dead code takes the n-th candidate
    dead = dead & (rank < count)
    candidates = vectors[jax.random.permutation(key_draw, vectors.shape[0])[:count]]
    codebook = jnp.where(dead[:, None], candidates[jnp.clip(rank, 0, count - 1)], codebook)
    # Different times of grace: with one for all, the moved codes that stay unused would die on the same day,
    # and so many moves at once throw a trained decoder off.
    grace = jax.random.uniform(key_share, (vocab,), minval=threshold, maxval=1.0) / vocab
    return codebook, dict(stats, share=jnp.where(dead, grace, stats["share"]))
