"""Resampling against PyTorch's outputs."""

import numpy as np
import pytest
from common import FOLDER

from vargen.tokenizers import resample

OPS = np.load(FOLDER / "ops.npz")
AREA = sorted(k.removeprefix("out/area_") for k in OPS.files if k.startswith("out/area_"))
BICUBIC = sorted(k.removeprefix("out/bicubic_") for k in OPS.files if k.startswith("out/bicubic_"))


@pytest.mark.parametrize("sizes", AREA)
def test_area_matrix(sizes):
    source, target = map(int, sizes.split("_"))
    np.testing.assert_allclose(resample.area_matrix(source, target), OPS[f"out/M_area_{sizes}"], atol=1e-7)


@pytest.mark.parametrize("sizes", BICUBIC)
def test_bicubic_matrix(sizes):
    source, target = map(int, sizes.split("_"))
    # PyTorch's own matrix is float32 throughout: its taps carry its rounding.
    np.testing.assert_allclose(
        resample.bicubic_matrix(source, target), OPS[f"out/M_bicubic_{sizes}"], atol=2e-6
    )


@pytest.mark.parametrize(
    "kind, sizes", [("area", "16_13"), ("area", "8_3"), ("bicubic", "3_16"), ("bicubic", "5_8")]
)
def test_images(kind, sizes):
    target = int(sizes.split("_")[1])
    x = OPS[f"in/{kind}_{sizes}"].transpose(0, 2, 3, 1)
    y = getattr(resample, kind)(x, (target, target))
    np.testing.assert_allclose(y, OPS[f"out/{kind}_{sizes}"].transpose(0, 2, 3, 1), atol=3e-6)


def test_sides_may_differ():
    x = np.arange(24, dtype=np.float32).reshape(1, 4, 6, 1)
    y = resample.area(x, (2, 3))
    np.testing.assert_allclose(np.asarray(y)[0, :, :, 0], [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]])


def test_the_mean_survives():
    for size in range(1, 9):
        np.testing.assert_allclose(resample.bicubic_matrix(size, 8).sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(resample.area_matrix(8, size).sum(axis=1), 1, atol=1e-6)
