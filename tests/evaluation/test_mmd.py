"""Discrepancies against sums over pairs, in float64."""

import numpy as np
import pytest

from vargen.evaluation import mmd

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(12, 3)), RNG.normal(size=(10, 3)) + 0.4


def pairs(a, b, kernel, own=True):
    return [kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if own or i != j]


def test_kid_is_the_unbiased_estimate():
    """Subsets of all features are all the same, but for their order."""

    def cubic(x, y):
        return (x @ y / 3 + 1) ** 3

    b = B[:10]
    a = A[:10]
    expected = np.mean(pairs(a, a, cubic, own=False)) + np.mean(pairs(b, b, cubic, own=False))
    expected -= 2 * np.mean(pairs(a, b, cubic))
    found = mmd.kid(a, b, subsets=3, subset_size=10)
    assert found.mean == pytest.approx(expected, rel=1e-12) and found.deviation == pytest.approx(0, abs=1e-12)


def test_kid_over_subsets():
    found, again = (mmd.kid(A, B, subsets=20, subset_size=6) for _ in range(2))
    assert found == again and found.deviation > 0
    assert mmd.kid(A, B, subsets=20, subset_size=6, seed=1) != found
    with pytest.raises(ValueError, match="samples: expected at least 11 features, found 10"):
        mmd.kid(A, B, subset_size=11)


@pytest.mark.parametrize("rows", (5, 4096))
def test_cmmd_is_the_sum_over_pairs(rows, monkeypatch):
    """The authors' formula, on embeddings of length 1: 1000 times the biased estimate."""
    monkeypatch.setattr(mmd, "ROWS", rows)

    def gaussian(x, y):
        return np.exp(-np.sum((x / np.linalg.norm(x) - y / np.linalg.norm(y)) ** 2) / 200)

    expected = (
        np.mean(pairs(A, A, gaussian)) + np.mean(pairs(B, B, gaussian)) - 2 * np.mean(pairs(A, B, gaussian))
    )
    assert mmd.cmmd(A, B) == pytest.approx(1000 * expected, rel=1e-9)
    assert mmd.cmmd(A, 3 * A) == pytest.approx(0, abs=1e-9)


def test_two_lengths():
    with pytest.raises(ValueError, match=r"\(12, 3\) and \(10, 2\)"):
        mmd.cmmd(A, B[:, :2])
