"""The norm of rows, and what modulates them, against the definition in float64."""

import functools
import re

import jax
import jax.numpy as jnp
import jax.test_util  # noqa: F401
import numpy as np
import pytest

from vargen.kernels import Norming, Part, normed
from vargen.kernels.norming import gpu

CASES = {
    # batch, rows, channels, kind, own, of what rows are modulated by: places, "at" of them, examples
    "layer": (2, 37, 48, "layer", True, None),
    "rms": (1, 5, 130, "rms", True, None),
    "unit": (1, 3, 24, "unit", False, None),
    "by_rows": (2, 21, 100, "layer", False, ("rows", 2)),
    "of_one": (3, 7, 64, "layer", True, ("one", 3)),
    "of_many": (2, 9, 40, "rms", False, ("at", 1)),
    "wide": (1, 3, 5000, "layer", False, ("one", 1)),
}


def case(name, dtype=jnp.float32):
    """Rows, their norm, and in float64 what it makes of them."""
    batch, n, size, kind, own, modulated = CASES[name]
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    x = draw(batch, n, size) + 0.5
    own = dict(scale=draw(size), bias=draw(size)) if own else {}
    y = np.asarray(x, np.float64)
    y = y - y.mean(-1, keepdims=True) if kind == "layer" else y
    square = (y**2).sum(-1, keepdims=True)
    y = y / np.sqrt(square if kind == "unit" else square / size + 1e-6)
    y = y * np.asarray(own.get("scale", 1), np.float64) + np.asarray(own.get("bias", 0), np.float64)
    scale = shift = None
    if modulated is not None:
        which, examples = modulated
        values, at = draw(examples, dict(rows=n, one=1, at=5)[which], 3, size), None
        wide = np.asarray(values, np.float64)
        if which == "at":
            at, wide = jnp.int32(3), wide[:, 3:4]
        scale, shift = Part(values, at, 2), Part(values, at, 0)
        y = y * (1 + wide[:, :, 2]) + wide[:, :, 0]
    return x, Norming(own, scale, shift, kind, 1e-6), y


@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition(name):
    """XLA's form and the kernel: 1e-5."""
    x, norm, expected = case(name)
    np.testing.assert_allclose(normed(x, norm), expected, atol=1e-5)
    np.testing.assert_allclose(gpu.normed(x, norm, interpret=True), expected, atol=1e-5)


def test_bfloat16():
    """The kernel rounds once, XLA's form after the norm too: as near to the definition."""
    x, norm, expected = case("by_rows", jnp.bfloat16)
    found, xla = gpu.normed(x, norm, interpret=True), norm(x)
    assert found.dtype == jnp.bfloat16
    errors = [np.std(np.asarray(y, np.float64) - expected) for y in (found, xla)]
    assert errors[0] <= 1.05 * errors[1] < 0.02, errors


@pytest.mark.parametrize("few, many", [(25, 28), (100, 250)])
def test_steps_share_a_kernel(few, many, lower_for_cuda):
    """That differ in their rows alone, and in which of the modulations are theirs: the same program and grid."""
    kernels = set()
    for n, index in ((few, 0), (many, 3)):
        x, values = jnp.zeros((2, n, 640), jnp.bfloat16), jnp.zeros((2, 1, 6, 640), jnp.bfloat16)
        norm = Norming({}, Part(values, None, index), Part(values, None, index + 1), "layer", 1e-6)
        text = lower_for_cuda(functools.partial(normed, x, norm))
        assert text.count("triton") == 1
        kernels.add(re.search(r"mhlo.backend_config = (\{.*?\}), operand", text)[1])
    assert len(kernels) == 1


def test_gradients_are_those_of_the_definition():
    """By finite differences, 1e-3."""
    x, norm, _ = case("of_many")

    def call(x, values):
        parts = (Part(values, norm.scale.at, i) for i in (2, 0))
        return normed(x[:, :2, :6], Norming({}, *parts, norm.kind, norm.eps))

    args = x, norm.scale.values[..., :6]
    jax.test_util.check_grads(call, args, 1, modes=["rev"], atol=1e-3, rtol=1e-3)
