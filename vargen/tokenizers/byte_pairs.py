"""Byte-pair merges (Sennrich et al., arXiv 1508.07909) with static shapes: the commonest pair becomes a code.

Sequences are int32 [B, L] that end with a code `fill`, which is in no pair, over and over.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError


def learn(codes: np.ndarray, count: int, first: int, fill: int) -> np.ndarray:
    """The merges of some sequences, greedily by how often a pair stands there (overlaps counted), never across them.

    Args:
      codes: int [B, L].
      count: merges, M.
      first: the code of the first merge; that of the k-th is first + k.
      fill: see above.

    Returns:
      int32 [M, 2]: the two codes that each joins; of pairs that are as common the one of the smallest codes.

    Raises:
      UserError: fewer pairs than merges.
    """
    vocab, merges, codes = first + count, np.zeros((count, 2), np.int32), np.asarray(codes, np.int32)
    for k in range(count):
        left, right = codes[:, :-1], codes[:, 1:]
        pairs = left.astype(np.int64) * vocab + right
        common = np.bincount(pairs[(left != fill) & (right != fill)], minlength=vocab**2)
        best = int(common.argmax())
        if not common[best]:
            raise UserError(
                f"config field tokenizer.merges: expected at most {k} for these pictures, found {count}"
            )
        merges[k] = divmod(best, vocab)
        codes = np.asarray(_merged(codes, *merges[k], first + k, fill))
        codes = codes[:, : max(2, int((codes != fill).sum(axis=1).max(initial=0)) + 1)]
    return merges


def merge(codes: jax.Array, merges: jax.Array, first: int, fill: int) -> jax.Array:
    """Sequences [B, L] with all merges [M, 2] made, the first first, from the left; [B, L]."""
    return jax.lax.scan(lambda x, pair: (_merged(x, *pair, fill), None), codes, _numbered(merges, first))[0]


def split(codes: jax.Array, merges: jax.Array, first: int, fill: int, length: int) -> jax.Array:
    """The inverse: [B, L] -> [B, length], length >= L; what doesn't fit is cut off."""
    codes = jnp.pad(codes, ((0, 0), (0, length - codes.shape[1])), constant_values=fill)
    pairs = _numbered(merges, first)
    return jax.lax.scan(lambda x, pair: (_parted(x, *pair, fill), None), codes, pairs, reverse=True)[0]


def join(codes: jax.Array, made: jax.Array, fill: int) -> jax.Array:
    """Sequences [B, L] with pairs joined until none is left that can be: of all in a sequence those first that make the
    smallest code, from the left.

    Args:
      codes: [B, L].
      made: int32 [K, K]: the code that two codes join to; K where they don't.
      fill: see above.
    """

    def best(codes):
        found = made[codes[:, :-1], codes[:, 1:]]
        return found, jnp.min(found, axis=1, keepdims=True)

    def body(codes):
        found, new = best(codes)
        return _joined(codes, (found == new) & (new < len(made)), new, fill)

    return jax.lax.while_loop(lambda codes: jnp.any(best(codes)[1] < len(made)), body, codes)


def _numbered(merges, first):
    """Left, right and new codes, [M] each."""
    return merges[:, 0], merges[:, 1], first + jnp.arange(len(merges), dtype=jnp.int32)


@functools.partial(jax.jit, static_argnums=4)
def _merged(codes, left, right, new, fill):
    return _joined(codes, (codes[:, :-1] == left) & (codes[:, 1:] == right), new, fill)


def _joined(codes, pairs, new, fill):
    """With `new` in the place of both codes where `pairs`, bool [B, L - 1]; of pairs that overlap the left one."""
    place = jnp.arange(codes.shape[1])
    match = jnp.pad(pairs, ((0, 0), (0, 1)))
    # In a run every other match counts.
    before = jax.lax.cummax(jnp.where(match, -1, place), axis=1)
    match = match & ((place - before) % 2 == 1)
    gone = jnp.pad(match[:, :-1], ((0, 0), (1, 0)))
    at = jnp.where(gone, codes.shape[1], jnp.cumsum(~gone, axis=1) - 1)
    return _put(codes, fill, [(at, jnp.where(match, new, codes))])


def _parted(codes, left, right, old, fill):
    match = codes == old
    at = jnp.cumsum(1 + match, axis=1) - 1 - match
    second = jnp.where(match, at + 1, codes.shape[1])
    return _put(codes, fill, [(at, jnp.where(match, left, codes)), (second, jnp.full_like(codes, right))])


def _put(codes, fill, entries):
    """Entries (places, codes) in sequences that hold `fill` elsewhere."""
    lanes, out = jnp.arange(len(codes))[:, None], jnp.full_like(codes, fill)
    for at, values in entries:
        out = out.at[lanes, at].set(values, mode="drop")
    return out
