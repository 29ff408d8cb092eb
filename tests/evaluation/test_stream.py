"""Statistics of a stream: memory that doesn't grow with the number of images."""

import tracemalloc

import numpy as np
import pytest

from vargen.evaluation import fid, views
from vargen.evaluation.inception import Outputs

IMAGES, BATCH, SIZES = 120_000, 500, (48, 32, 20)
ALL = IMAGES * sum(SIZES) * 4  # bytes of everything: 48 MB


def test_a_hundred_thousand_images(monkeypatch):
    """Sums of FID, sFID, inception score and FD-DINOv2, and the first features, which are kept for the rest."""
    monkeypatch.setattr(fid, "KEPT", 2000)
    rng, gathered = np.random.default_rng(0), fid.Gathered()
    distance, held = views.FrechetDistance(SIZES[0]), views.Discrepancy(SIZES[0])
    exact = np.zeros(SIZES[0])
    tracemalloc.start()
    try:
        peaks = []
        for i in range(IMAGES // BATCH):
            batch = Outputs(*(rng.normal(0.5, 1, (BATCH, n)).astype(np.float32) for n in SIZES))
            exact += batch.pool.sum(axis=0, dtype=np.float64)
            gathered.add(batch)
            distance.add(batch.pool)
            held.add(batch.pool)
            if i in (39, IMAGES // BATCH - 1):
                peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert gathered.count == distance.count == IMAGES and held.count == 2000
    assert peaks[1] < 3 * 2**20 < ALL / 10
    assert peaks[1] - peaks[0] < 2**17  # five sixths of the images later
    found = gathered.reference()
    assert found.features.shape == (2000, SIZES[0]) and found.count == IMAGES
    np.testing.assert_allclose(found.pool.mean, exact / IMAGES, rtol=1e-9)
    assert np.trace(found.pool.covariance) == pytest.approx(SIZES[0], rel=0.01)
    assert 1 < gathered.inception_score() < SIZES[2]
