"""All figures together, of features that are known, against dense formulas."""

import numpy as np
import pytest
import scipy.linalg

from vargen.errors import UserError
from vargen.evaluation import adm, fid, mmd
from vargen.evaluation.inception import Outputs
from vargen.evaluation.moments import Gaussian

RNG = np.random.default_rng(0)


def outputs(count, shift=0.0):
    sizes = (6, 4, 5)
    return Outputs(*(np.abs(RNG.normal(size=(count, n)) + shift).astype(np.float32) for n in sizes))


def gathered(found, batch=7):
    collected = fid.Gathered()
    for start in range(0, len(found.pool), batch):
        collected.add(Outputs(*(x[start : start + batch] for x in found)))
    return collected


def distance(a, b):
    """Heusel et al. 2017, eq. 6, with SciPy's square root of a matrix."""
    a, b = np.float64(a), np.float64(b)
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(ca + cb - 2 * scipy.linalg.sqrtm(ca @ cb).real)


def test_the_figures(monkeypatch):
    monkeypatch.setattr(mmd, "SUBSET_SIZE", 20)
    monkeypatch.setattr(mmd.kid, "__defaults__", (3, 20, 0))
    real, drawn = outputs(50), outputs(40, 0.3)
    found = fid.compare(gathered(real).reference(), gathered(drawn))
    assert found["fid"] == pytest.approx(distance(real.pool, drawn.pool), rel=1e-8)
    assert found["sfid"] == pytest.approx(distance(real.spatial, drawn.spatial), rel=1e-8)
    both = found["inception_precision"], found["inception_recall"]
    assert both == adm.precision_recall(real.pool, drawn.pool)
    assert found["kid"] == mmd.kid(real.pool, drawn.pool).mean
    p = np.exp(drawn.logits) / np.exp(drawn.logits).sum(axis=1, keepdims=True)
    score = np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean())
    assert found["inception_score"] == pytest.approx(score, rel=1e-5)  # of float32's logarithms
    assert set(found) == {"fid", "sfid", "inception_score", "inception_precision", "inception_recall", "kid"}


def test_statistics_alone_give_less():
    real, drawn = outputs(50), gathered(outputs(40))
    known = gathered(real).reference()
    assert set(fid.compare(fid.Reference(known.pool), drawn)) == {"fid", "inception_score"}
    found = fid.compare(fid.Reference(known.pool, known.spatial), drawn)
    assert set(found) == {"fid", "sfid", "inception_score"}
    with pytest.raises(UserError, match="expected 3 of an image, as the reference has, found 6"):
        fid.compare(fid.Reference(Gaussian(np.zeros(3), np.eye(3))), drawn)


def test_features_are_kept_up_to_a_limit(monkeypatch):
    """Statistics are of all images all the same."""
    monkeypatch.setattr(fid, "KEPT", 16)
    real = outputs(50)
    found = gathered(real).reference()
    np.testing.assert_array_equal(found.features, real.pool[:16])
    np.testing.assert_allclose(found.pool.mean, real.pool.mean(axis=0), rtol=1e-5)


def test_figures_of_given_features():
    real, drawn = RNG.normal(size=(50, 6)), RNG.normal(size=(40, 6)) + 0.2
    found = fid.compare_features(real, drawn)
    assert found["features_frechet_distance"] == pytest.approx(distance(real, drawn), rel=1e-8)
    assert found["features_cmmd"] == mmd.cmmd(real, drawn) and "features_kid" not in found
    with pytest.raises(UserError, match="samples: expected more than 6, which the statistics need, found 6"):
        fid.compare_features(real, drawn[:6])
    with pytest.raises(UserError, match="expected 6 of an image"):
        fid.compare_features(real, drawn[:, :4])
