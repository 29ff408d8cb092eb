"""Nearest pictures against a loop over all pairs."""

import numpy as np
import pytest

from vargen.evaluation import nearest


@pytest.mark.parametrize(
    "size, kept", [((16, 16), (16, 16)), ((32, 48), (16, 16)), ((18, 7), (9, 7)), ((17, 64), (1, 16))]
)
def test_nearest(size, kept):
    rng = np.random.default_rng(0)
    others = rng.integers(0, 256, (40, *size, 3), np.uint8)
    images = np.concatenate([others[[7, 30]], rng.integers(0, 256, (5, *size, 3), np.uint8)])
    places, distances = nearest.nearest(images, nearest.small(others))

    def averaged(image):
        h, w = kept
        p, q = size[0] // h, size[1] // w
        pixels = image / 127.5 - 1
        return np.array(
            [[pixels[i * p : i * p + p, j * q : j * q + q].mean((0, 1)) for j in range(w)] for i in range(h)]
        )

    expected = np.array(
        [[np.sqrt(np.mean((averaged(a) - averaged(b)) ** 2)) for b in others] for a in images]
    )
    np.testing.assert_array_equal(places, expected.argmin(1))
    np.testing.assert_allclose(distances, expected.min(1), atol=1e-9)
    assert list(places[:2]) == [7, 30] and (distances[:2] == 0).all()


def test_floats_and_bytes_agree():
    pixels = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 1), np.uint8)
    np.testing.assert_allclose(nearest.small(pixels), nearest.small(pixels / 127.5 - 1), atol=1e-12)


def test_clips():
    """By all their frames: the clip that differs in one alone is farther than the same."""
    clips = np.random.default_rng(2).integers(0, 256, (4, 3, 16, 16, 1), np.uint8)
    near = clips[[1]].copy()
    near[0, 2] = 255 - near[0, 2]
    places, distances = nearest.nearest(np.concatenate([clips[[3]], near]), nearest.small(clips))
    assert list(places) == [3, 1] and distances[0] == 0
    expected = np.sqrt(np.mean((near[0] / 127.5 - clips[1] / 127.5) ** 2))
    np.testing.assert_allclose(distances[1], expected, atol=1e-9)
