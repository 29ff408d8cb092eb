"""Weights, pictures and features that a name determines, so that goldens of them needn't hold them.

NumPy's RandomState draws the same for good. What goldens were recorded with is what stands here.
"""

import zlib

import numpy as np


def random(name):
    """The generator of a name."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def weights(shapes):
    """Float32 arrays by name for shapes by name, under which signals neither die nor grow much."""
    found = {}
    for name, shape in shapes.items():
        x = random(name).normal(size=shape)
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            x = 1 + 0.2 * np.tanh(x)
        else:
            x = x * (np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2)
        found[name] = x.astype(np.float32)
    return found


def images(name, shape):
    """uint8 of a shape, every level as likely."""
    return random(name).randint(0, 256, shape).astype(np.uint8)


def features(name, rows, scale=1.0):
    """Float32 [rows, 256], above 0 as Inception's are, of a spectrum with a long tail: over four powers of ten."""
    spectrum = 4 * (1 + np.arange(256.0)) ** -1.1
    mixed = np.linalg.qr(random("mixing").normal(size=(256, 256)))[0]
    found = scale * random(name).normal(size=(rows, 256)) * spectrum @ mixed
    return (2 * np.abs(found + random("mean").normal(size=256) / 4)).astype(np.float32)
