"""How often codes are used, and what becomes of those that are not.

A codebook trained by gradients alone collapses: a code that wins no vector gets no gradient and never moves.
Here the share of hits of every code is followed by a moving average, and codes whose share has all but
vanished are moved onto vectors that the codebook serves badly (as in Jukebox, arXiv 2005.00341, with the
candidates drawn by their error, as k-means++ draws its seeds). The first such round is at the same time an
initialisation from data.
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


def revive(
    codebook: jax.Array,
    stats: dict,
    vectors: jax.Array,
    error: jax.Array,
    key: jax.Array,
    sizes,
    threshold: float,
) -> tuple[jax.Array, dict]:
    """Moves the codes whose share is below threshold / K onto badly served vectors.

    Args:
      codebook: float32 [K, C].
      stats: of `init`.
      vectors: float32 [M, C], what the codebook was asked to represent.
      error: float32 [M], squared distance of each to its code.
      key: for the draw, without replacement and in proportion to the error.
      sizes: slots per level.
      threshold: a code is dead below this fraction of the uniform share 1 / K.

    Returns:
      The codebook and the statistics, in which the moved codes are given the uniform share.
    """
    vocab = codebook.shape[0]
    dead = overall(stats, sizes) < threshold / vocab
    # Gumbel's trick: the highest perturbed log-weights are a draw without replacement.
    score = jnp.log(error + 1e-12) + jax.random.gumbel(key, error.shape)
    count = min(vocab, error.shape[0])
    _, chosen = jax.lax.top_k(score, count)
    rank = jnp.cumsum(dead) - 1  # the n-th dead code takes the n-th candidate
    dead = dead & (rank < count)
    candidates = vectors[chosen[jnp.clip(rank, 0, count - 1)]]
    codebook = jnp.where(dead[:, None], candidates, codebook)
    share = jnp.where(dead[None], 1.0 / vocab, stats["share"])
    return codebook, dict(stats, share=share)
