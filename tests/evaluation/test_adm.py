"""ADM's figures against its formulas in NumPy: rows of probabilities, distances in float16 pair by pair."""

import numpy as np
import pytest

from vargen.evaluation import adm, metrics

RNG = np.random.default_rng(0)


def score(logits, split):
    """improved-gan's formula, part by part."""
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = []
    for start in range(0, len(p), split):
        part = p[start : start + split]
        divergence = (part * (np.log(part) - np.log(part.mean(axis=0)))).sum(axis=1)
        scores.append(np.exp(divergence.mean()))
    return np.mean(scores)


@pytest.mark.parametrize("batch", (3, 5, 23))
def test_inception_score_in_parts(batch, monkeypatch):
    monkeypatch.setattr(adm, "SPLIT", 10)
    logits = RNG.normal(size=(23, 6)) * 3  # parts of 10, 10 and 3
    found = adm.InceptionScore()
    for start in range(0, 23, batch):
        found.add(logits[start : start + batch])
    assert found.value() == pytest.approx(score(logits, 10), rel=1e-12)
    assert abs(score(logits, 10) - score(logits, 23)) > 0.05  # the parts matter


def test_inception_score_by_hand():
    """As many as there are classes, each sure of another; 1 where all are the same."""
    found, same = adm.InceptionScore(), adm.InceptionScore()
    found.add(np.eye(5) * 1000)
    same.add(np.eye(5)[[2] * 4] * 1000)
    assert found.value() == pytest.approx(5) and same.value() == pytest.approx(1)


def half_distances(a, b):
    """ADM's matrix: every operation rounded to float16, sums taken in float32."""
    half = np.float16
    a, b = a.astype(half), b.astype(half)
    norms = [(x * x).astype(np.float32).sum(axis=1).astype(half) for x in (a, b)]
    products = (a.astype(np.float32) @ b.astype(np.float32).T).astype(half)
    return np.maximum(norms[0][:, None] - half(2) * products + norms[1], half(0)).astype(np.float32)


def brute(reference, samples, distances, k=3):
    radii = [np.sort(distances(x, x), axis=1)[:, k] for x in (reference, samples)]
    between = distances(reference, samples)
    precision = np.mean((between <= radii[0][:, None]).any(axis=0))
    return precision, np.mean((between <= radii[1]).any(axis=1))


@pytest.mark.parametrize("block", (13, 10_000))
def test_precision_and_recall_in_float16(block):
    reference = RNG.gamma(0.5, 2, size=(61, 32)).astype(np.float32)
    samples = (0.9 * RNG.gamma(0.5, 2, size=(50, 32)) + 0.05).astype(np.float32)
    found = adm.precision_recall(reference, samples, block=block)
    assert found == brute(reference, samples, half_distances)
    assert 0.05 < min(found) and max(found) < 0.95


def test_float16_makes_part_of_the_figure():
    """Points that float16 can't tell apart lie on each other."""
    places = np.arange(40, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32) * 0.01
    reference, samples = 60 + places, 60.004 + places
    assert metrics.precision_recall(reference, samples) == (1, 1)
    far = samples + np.float32(0.4) + places * 0
    assert adm.precision_recall(reference, far) == brute(reference, far, half_distances)
    assert adm.precision_recall(reference, far) != metrics.precision_recall(reference, far)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_distances_that_overflow_are_exact():
    reference, samples = (200 * RNG.normal(size=(n, 8)).astype(np.float32) for n in (30, 40))
    assert not np.isfinite(half_distances(reference, reference)).all()
    assert adm.precision_recall(reference, samples) == metrics.precision_recall(reference, samples)


def test_too_few():
    few = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="samples: expected .* above k=3"):
        adm.precision_recall(np.zeros((9, 2), np.float32), few)
