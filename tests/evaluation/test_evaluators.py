"""Figures against the field's own evaluators, run on the same features when the golden was recorded.

ADM's evaluator (openai/guided-diffusion): its code as it is, with NumPy in the place of TensorFlow's operations, of
which sums of float16 are taken in float32, as GPUs do. KID is torch-fidelity's and CMMD its authors' code; both compute
in float32, and were run in float64 too.
"""

import numpy as np
import pytest
import seeded
from golden import Golden

from vargen.evaluation import adm, mmd, moments

GOLDEN = Golden("evaluators")
SOME = 1500  # of each set, for precision and recall


@pytest.fixture(scope="module")
def sets():
    return seeded.features("reference", 3000), seeded.features("samples", 5300, 0.8)


def told(name):
    return GOLDEN[f"out/{name}"].tolist()


def test_fid_is_adms(sets):
    """3.77, of a spectrum over four powers of ten; in a stream here, of all features at once there."""
    gaussians = []
    for features in sets:
        found = moments.Moments(features.shape[1])
        for batch in np.array_split(features, 30):
            found.add(batch)
        gaussians.append(found.gaussian())
    assert gaussians[0].distance(gaussians[1]) == pytest.approx(told("fid"), abs=1e-4)


def test_inception_score_is_adms(sets):
    """Of parts of 5000 and 300; there in float32."""
    logits = sets[1] @ (seeded.random("softmax").normal(size=(256, 40)) * 0.5).astype(np.float32)
    found = adm.InceptionScore()
    for batch in np.array_split(logits, 7):
        found.add(batch)
    assert found.value() == pytest.approx(told("inception_score"), rel=1e-5)


@pytest.mark.parametrize("scale, kind", ((1, ""), (200, "_overflowing")))
def test_precision_and_recall_are_adms(sets, scale, kind):
    """At most one image of 1500 otherwise: float32's sums in another order round to another float16 now and then."""
    found = adm.precision_recall(*(np.float32(scale) * x[:SOME] for x in sets))
    for ours, name in zip(found, ("precision", "recall"), strict=True):
        assert 0.5 < ours < 0.99
        assert ours == pytest.approx(told(name + kind), abs=1.01 / SOME)


def test_kid_is_torch_fidelitys(sets):
    """The same subsets, drawn alike."""
    found = mmd.kid(*sets, subsets=10)
    assert found == pytest.approx(told("kid_float64"), rel=1e-9)
    assert found == pytest.approx(told("kid_float32"), abs=1e-6)


def test_cmmd_is_its_authors(sets):
    found = mmd.cmmd(*(x[:1000] for x in sets))
    assert found == pytest.approx(told("cmmd_float64"), rel=1e-8)
    assert found == pytest.approx(told("cmmd_float32"), abs=2e-4)  # 1000 times what float32 loses
