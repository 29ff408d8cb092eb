"""Arrays to write, and a pickle that would do harm."""

import os

import numpy as np


def arrays():
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "a.double": rng.normal(size=5),
        "index": np.arange(6).reshape(2, 3),
        "mask": np.array([True, False]),
        "scale": np.array(3.5, np.float32),
        "none": np.zeros((0, 2), np.float32),
    }


def assert_same(found, expected):
    assert set(found) == set(expected) and len(found) == len(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def message(error):
    assert "\n" not in str(error.value)
    return str(error.value)


class Malice:
    """Unpickling it would create a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)
