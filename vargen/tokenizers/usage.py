"""How often codes are used, level by level, and what becomes of those that are not.

A codebook trained by gradients alone collapses: a code that wins no vector gets no gradient and never moves.
Here the share of hits of every code at every level is followed by a moving average, and codes whose share has
all but vanished at every level are moved onto vectors that the codebook is asked to represent (random restarts,
Jukebox, arXiv 2005.00341). The first such round is at the same time an initialisation from data. Drawing the
vectors in proportion to their error, as k-means++ does, was tried on digits and gained nothing.

Levels count alike, however many slots they have: judged by all slots together, a code that serves a level of one
slot alone would be dead, and vectors of such a level would hardly ever be drawn.

Where a slot holds several codes (residual quantisation), each of its depths counts as a level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DECAY = 0.99  # of the moving average; a running mean until it has seen 1 / (1 - DECAY) batches
LEAST_USE = 0.5  # of a level; below, `warning` says so
USE, PERPLEXITY = "codebook_use", "codebook_perplexity"


# In training: moving averages.


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


def alive(stats: dict, threshold: float) -> jax.Array:
    """bool [levels, K]: which codes have at least `threshold` of the uniform share 1 / K at each level."""
    return stats["share"] >= threshold / stats["share"].shape[1]


def summary(stats: dict, sizes: Sequence[int], threshold: float) -> dict[str, jax.Array]:
    """As `statistics`, by the moving averages: use is the share of the codes that are `alive`; scalars.

    Args:
      stats: of `init`.
      sizes: slots per level.
      threshold: see `alive`.
    """
    share, used = stats["share"], alive(stats, threshold)
    weights = jnp.asarray(sizes, jnp.float32) / sum(sizes)
    rows = jnp.concatenate([(weights @ share)[None], share])
    perplexity = jnp.exp(-jnp.sum(rows * jnp.log(rows + 1e-12), axis=1))
    use = jnp.mean(jnp.concatenate([jnp.any(used, axis=0)[None], used]), axis=1)
    return _named(use, perplexity)


def due(step: jax.Array, steps: int, every: int, until: float) -> jax.Array:
    """bool []: whether update number `step` (from 1) of `steps` ends with a round of revival.

    That is every `every` updates in the first share `until` of the training.
    """
    return jnp.logical_and(step % every == 0, step <= round(until * steps))


def revive(
    codebook: jax.Array, stats: dict, vectors: Sequence[jax.Array], key: jax.Array, threshold: float
) -> tuple[jax.Array, dict]:
    """Moves the codes that are alive at no level onto vectors drawn at random, as many from each level.

    Args:
      codebook: float32 [K, C].
      stats: of `init`.
      vectors: float32 [M, C] per level, what the codebook was asked to represent there.
      key: for the draw, without replacement.
      threshold: see `alive`.

    Returns:
      The codebook, and the statistics with new shares for the codes that were moved.
    """
    vocab, total = codebook.shape[0], sum(len(v) for v in vectors)
    count = min(vocab, total)
    key_draw, key_share = jax.random.split(key)
    dead = ~jnp.any(alive(stats, threshold), axis=0)
    rank = jnp.cumsum(dead) - 1  # the n-th dead code takes the n-th candidate
    dead = dead & (rank < count)
    candidates = drawn(vectors, key_draw)[:count]
    codebook = jnp.where(dead[:, None], candidates[jnp.clip(rank, 0, count - 1)], codebook)
    # Different times of grace: with one for all, the moved codes that stay unused would die on the same day,
    # and so many moves at once throw a trained decoder off.
    grace = jax.random.uniform(key_share, (vocab,), minval=threshold, maxval=1.0) / vocab
    return codebook, dict(stats, share=jnp.where(dead, grace, stats["share"]))


def drawn(vectors: Sequence[jax.Array], key: jax.Array) -> jax.Array:
    """All vectors [M, C] of some levels in a random sequence, in which levels take turns: float32 [sum of M, C]."""
    counts = [len(v) for v in vectors]
    return jnp.concatenate(vectors)[_in_turns(jax.random.permutation(key, sum(counts)), counts)]


def _in_turns(places: jax.Array, counts: Sequence[int]) -> jax.Array:
    """Places int32 [M] in a list of `counts` vectors per level, reordered so that levels take turns.

    The order within a level stays, and where a level has no more vectors the others go on.
    """
    level = jnp.asarray(np.repeat(np.arange(len(counts)), counts))[places]
    turn = jnp.cumsum(level[:, None] == jnp.arange(len(counts)), axis=0)
    turn = jnp.take_along_axis(turn, level[:, None], axis=1)[:, 0]
    return places[jnp.argsort(turn * len(counts) + level)]


# On a set of images: exact counts.


def count(codes: np.ndarray, sizes: Sequence[int], vocab: int, exists: Any = None) -> np.ndarray:
    """How often each level (and of several codes a slot each depth of it) has each code.

    Args:
      codes: int [M, N], or [M, N, Q].
      sizes: slots per level.
      vocab: K.
      exists: bool [M, N], slots that count; None for all.

    Returns:
      int64 [levels, K].

    Raises:
      ValueError: other codes than 0 to K - 1.
    """
    codes = np.asarray(codes)
    if codes.size and (codes.min() < 0 or codes.max() >= vocab):
        raise ValueError(
            f"codes: expected values from 0 to {vocab - 1}, found {codes.min()} to {codes.max()}"
        )
    exists = np.ones(codes.shape[:2], bool) if exists is None else np.asarray(exists)
    levels = list(zip(*(np.split(x, np.cumsum(sizes)[:-1], axis=1) for x in (codes, exists)), strict=True))
    if codes.ndim == 3:
        levels = [(level[..., depth], there) for level, there in levels for depth in range(codes.shape[-1])]
    return np.stack([np.bincount(level[there], minlength=vocab) for level, there in levels])


def statistics(counts: np.ndarray) -> dict[str, float]:
    """How a codebook is used, by its counts int [levels, K] on one set of images; see `count`.

    Returns:
      codebook_use: the distinct codes that occur, as a share of those that could: K, or the number of slots in all
      images where that is less. codebook_perplexity: exp of the entropy of their frequencies, 1 to K. Both over all
      slots, and of each level with the suffix _level_1, _level_2, ...

    Raises:
      ValueError: no codes at some level.
    """
    rows = np.concatenate([counts.sum(axis=0)[None], counts]).astype(np.float64)
    totals = rows.sum(axis=1, keepdims=True)
    if not totals.all():
        raise ValueError("codes: expected some at every level, found none")
    frequencies = rows / totals
    entropy = -np.sum(frequencies * np.log(np.where(rows > 0, frequencies, 1.0)), axis=1)
    use = np.sum(rows > 0, axis=1) / np.minimum(rows.shape[1], totals[:, 0])
    return {name: float(value) for name, value in _named(use, np.exp(entropy)).items()}


def _named(use: Any, perplexity: Any) -> dict[str, Any]:
    """Values of all slots and of each level, [1 + levels] each, by name."""
    found = {}
    for i in range(len(use)):
        level = f"_level_{i}" if i else ""
        found |= {f"{USE}{level}": use[i], f"{PERPLEXITY}{level}": perplexity[i]}
    return found


def by_level(metrics: Mapping[str, float]) -> dict[int, tuple[float, float]]:
    """Level (from 1) -> (use, perplexity), from what `statistics` gives; {} where there is none."""
    found: dict[int, tuple[float, float]] = {}
    while f"{USE}_level_{(level := len(found) + 1)}" in metrics:
        found[level] = (metrics[f"{USE}_level_{level}"], metrics[f"{PERPLEXITY}_level_{level}"])
    return found


def line(metrics: Mapping[str, float]) -> str:
    """One line: "codebook use 97.7 % (level 1 1.6 %, level 2 68.8 %), perplexity 66.0"; `metrics` of `statistics`."""
    each = ", ".join(f"level {level} {100 * use:.1f} %" for level, (use, _) in by_level(metrics).items())
    return f"codebook use {100 * metrics[USE]:.1f} % ({each}), perplexity {metrics[PERPLEXITY]:.1f}"


def warning(metrics: Mapping[str, float]) -> str:
    """One line where a level is used below `LEAST_USE`, '' where none is; `metrics` as for `by_level`."""
    low = [f"level {i} ({100 * use:.1f} %)" for i, (use, _) in by_level(metrics).items() if use < LEAST_USE]
    if not low:
        return ""
    return (
        f"warning: less than half of the codes that could be are in use at {', '.join(low)}; more steps, a smaller "
        "tokenizer.vocab or a larger tokenizer.entropy_weight may help"
    )
