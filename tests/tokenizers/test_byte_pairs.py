"""Byte-pair merges against a plain program over lists."""

import collections

import jax
import numpy as np
import pytest

from vargen.errors import UserError
from vargen.tokenizers import byte_pairs

FIRST, FILL = 5, 4


def sequences(count: int = 40, length: int = 30) -> np.ndarray:
    """Codes 0 to 3 in runs, of different lengths, then `FILL`."""
    rng = np.random.default_rng(0)
    codes = np.repeat(rng.integers(0, 4, (count, length)), 2, axis=1)[:, :length]
    codes = np.where(rng.random(codes.shape) < 0.3, rng.integers(0, 4, codes.shape), codes)
    return np.where(np.arange(length) < rng.integers(0, length, (count, 1)), codes, FILL).astype(np.int32)


def lists(codes) -> list[list[int]]:
    return [[int(c) for c in row if c != FILL] for row in np.asarray(codes)]


def joined(row: list[int], pair: tuple[int, int], new: int) -> list[int]:
    out = []
    for code in row:
        # A code that came of this merge is larger than those of the pair.
        if out and (out[-1], code) == pair:
            out[-1] = new
        else:
            out.append(code)
    return out


def plainly(rows: list[list[int]], count: int) -> tuple[list[tuple[int, int]], list[list[int]]]:
    merges = []
    for k in range(count):
        pairs = collections.Counter(pair for row in rows for pair in zip(row, row[1:]))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        rows = [joined(row, best, FIRST + k) for row in rows]
    return merges, rows


def test_merges():
    codes = sequences()
    merges = byte_pairs.learn(codes, 8, FIRST, FILL)
    expected, rows = plainly(lists(codes), 8)
    assert [tuple(pair) for pair in merges.tolist()] == expected
    assert any(a == b for a, b in expected) and any(max(pair) >= FIRST for pair in expected)
    found = np.asarray(jax.jit(byte_pairs.merge, static_argnums=(2, 3))(codes, merges, FIRST, FILL))
    assert lists(found) == rows
    assert (found == FILL).sum() > (codes == FILL).sum()
    split = jax.jit(byte_pairs.split, static_argnums=(2, 3, 4))
    np.testing.assert_array_equal(split(found[:, :20], merges, FIRST, FILL, 30), _back(found[:, :20], merges))
    np.testing.assert_array_equal(split(found, merges, FIRST, FILL, 30), codes)
    np.testing.assert_array_equal(byte_pairs.merge(codes, merges[:0], FIRST, FILL), codes)


def _back(codes, merges) -> np.ndarray:
    """Split by a stack."""
    out = np.full((len(codes), 30), FILL)
    for row, some in zip(out, lists(codes), strict=True):
        stack, found = some[::-1], []
        while stack:
            code = stack.pop()
            if code >= FIRST:
                stack += merges[code - FIRST].tolist()[::-1]
            else:
                found.append(code)
        row[: len(found)] = found
    return out


def test_too_few_pairs():
    codes = np.array([[1, 2, 3, FILL]])
    with pytest.raises(UserError, match="tokenizer.merges: expected at most 2 for these pictures, found 3"):
        byte_pairs.learn(codes, 3, FIRST, FILL)
