"""Inception score, precision and recall as ADM's evaluator computes them (openai/guided-diffusion, evaluations/):
its splits, its neighbours, its 16-bit distances.

Squared distances in float16 have steps of 0.25 from 256 on and of 0.5 from 512: that is part of the published figures,
which the same measure in float64 (`metrics.precision_recall`) misses by some tenths of a point. Sums are taken in
float32 and rounded once, as GPUs do it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

SPLIT = 5000  # samples of one part of the inception score
NEIGHBOURS = 3
BLOCK = 10_000  # rows and columns of distances at once; one that overflows float16 is computed in float32


class InceptionScore:
    """exp of the mean divergence of a sample's classes from all samples' (Salimans et al. 2016), as samples come.

    The mean over parts of `SPLIT` samples in their order, the last of which may be short.
    """

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._classes: list[np.ndarray] = []  # sums of probabilities, of each part
        self._entropies: list[float] = []  # sums of p log p

    def add(self, logits: np.ndarray) -> None:
        """Takes in logits [B, classes]."""
        logits = np.asarray(logits, np.float64)
        while len(logits):
            if not self._counts or self._counts[-1] == SPLIT:
                self._counts.append(0)
                self._classes.append(np.zeros(logits.shape[1]))
                self._entropies.append(0.0)
            some = logits[: SPLIT - self._counts[-1]]
            logits = logits[len(some) :]
            centred = some - some.max(axis=1, keepdims=True)
            logs = centred - np.log(np.exp(centred).sum(axis=1, keepdims=True))
            self._counts[-1] += len(some)
            self._classes[-1] += np.exp(logs).sum(axis=0)
            self._entropies[-1] += float(np.sum(np.exp(logs) * logs))

    def value(self) -> float:
        """The score of what was taken in."""
        scores = []
        for count, classes, entropy in zip(self._counts, self._classes, self._entropies, strict=True):
            mean = classes / count
            scores.append(np.exp(entropy / count - np.sum(mean * np.log(np.maximum(mean, 1e-300)))))
        return float(np.mean(scores))


def precision_recall(
    reference: np.ndarray, samples: np.ndarray, k: int = NEIGHBOURS, block: int = BLOCK
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019) of features float32 [M, F] and [G, F].

    A point is covered by a set if it is no farther from one of its members than that member's k-th neighbour. The first
    of its neighbours is the member itself, at the distance that float16 gives, which isn't always 0.

    Args:
      reference, samples: features of both sets.
      k: neighbours.
      block: rows and columns of one matrix of distances; only whether it overflows float16 depends on it.

    Returns:
      Shares of samples that the reference covers, and of the reference that samples cover.

    Raises:
      ValueError: a set of at most k.
    """
    for name, features in (("reference", reference), ("samples", samples)):
        if np.ndim(features) != 2 or len(features) <= k:
            raise ValueError(f"{name}: expected [M, F] with M above k={k}, found {np.shape(features)}")
    radii = _radii(reference, k, block), _radii(samples, k, block)
    covered = np.zeros(len(reference), bool), np.zeros(len(samples), bool)
    for i in range(0, len(reference), block):
        for j in range(0, len(samples), block):
            rows, columns = slice(i, i + block), slice(j, j + block)
            found = _covered(reference[rows], samples[columns], radii[0][rows], radii[1][columns])
            for which, part, here in zip(covered, (rows, columns), found, strict=True):
                which[part] |= np.asarray(here)
    return float(covered[1].mean()), float(covered[0].mean())


def _radii(features: np.ndarray, k: int, block: int) -> np.ndarray:
    """Squared distances of each to its k-th neighbour, float32 [M]."""
    radii = np.empty(len(features), np.float32)
    for i in range(0, len(features), block):
        rows = features[i : i + block]
        nearest = np.empty((len(rows), 0), np.float32)
        for j in range(0, len(features), block):
            found = _nearest(rows, features[j : j + block], k)
            nearest = np.sort(np.concatenate([nearest, found], axis=1), axis=1)[:, : k + 1]
        radii[i : i + block] = nearest[:, k]
    return radii


@functools.partial(jax.jit, static_argnames="k")
def _nearest(rows: jax.Array, columns: jax.Array, k: int) -> jax.Array:
    """Squared distances of each row to its k + 1 nearest columns, or to all where there are fewer: [R, k + 1]."""
    return -jax.lax.top_k(-_distances(rows, columns), min(k + 1, len(columns)))[0]


@jax.jit
def _covered(
    rows: jax.Array, columns: jax.Array, row_radii: jax.Array, column_radii: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Which rows lie within a column's radius, bool [R], and which columns within a row's, bool [C]."""
    distances = _distances(rows, columns)
    return jnp.any(distances <= column_radii, axis=1), jnp.any(distances <= row_radii[:, None], axis=0)


def _distances(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Squared distances float32 [R, C], rounded to float16 after every operation unless one overflows."""
    # XLA may leave out a conversion there and back; this it may not.
    half = functools.partial(jax.lax.reduce_precision, exponent_bits=5, mantissa_bits=10)
    rounded = _squared_distances(half(rows), half(columns), half)
    exact = functools.partial(_squared_distances, rows, columns, lambda x: x)
    return jax.lax.cond(jnp.all(jnp.isfinite(rounded)), lambda: rounded, exact)


def _squared_distances(rows: jax.Array, columns: jax.Array, rounded) -> jax.Array:
    norms = [rounded(jnp.sum(rounded(x * x), axis=1)) for x in (rows, columns)]
    products = rounded(jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST))
    doubled = rounded(2 * products)
    return jnp.maximum(rounded(rounded(norms[0][:, None] - doubled) + norms[1]), 0)
