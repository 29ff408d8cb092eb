"""Running sums against NumPy's own mean and covariance."""

import numpy as np
import pytest

from vargen.evaluation import metrics, moments

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("sizes", [(40,), (1, 7, 32), (8,) * 5])
def test_mean_and_covariance_in_batches(sizes):
    features = (RNG.normal(size=(40, 6)) @ RNG.normal(size=(6, 6)) + 30).astype(np.float32)
    found = moments.Moments(6)
    for batch in np.split(features, np.cumsum(sizes)[:-1]):
        found.add(batch)
    assert found.count == 40
    exact = features.astype(np.float64)
    np.testing.assert_allclose(found.gaussian().mean, exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.gaussian().covariance, np.cov(exact, rowvar=False), rtol=1e-9, atol=1e-9)


def test_distance_is_that_of_the_features():
    a, b = RNG.normal(size=(50, 4)), RNG.normal(size=(60, 4)) + 0.5
    gaussians = []
    for features in (a, b):
        found = moments.Moments(4)
        found.add(features)
        gaussians.append(found.gaussian())
    assert gaussians[0].distance(gaussians[1]) == pytest.approx(metrics.frechet_distance(a, b), rel=1e-9)


def test_one_feature_has_no_covariance():
    found = moments.Moments(3)
    found.add(np.ones((1, 3)))
    with pytest.raises(ValueError, match="at least 2, found 1"):
        found.gaussian()
