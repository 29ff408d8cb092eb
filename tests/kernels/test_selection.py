"""The least number of a top k and of a nucleus, against a sort."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen.kernels import filter_logits, least_of_most
from vargen.kernels.selection import gpu, xla

FORMS = dict(
    one_bit=functools.partial(xla.by_digits, bits=1),
    four_bits=functools.partial(xla.by_digits, bits=4),
    gpu=functools.partial(gpu.search, interpret=True),
)


def numbers():
    """float32 [6, 40]: of both signs and many sizes, ties, zeros of both signs, infinities, none above 0."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 40)) * 10.0 ** rng.integers(-30, 30, (6, 40))
    x[1] = np.round(rng.normal(size=40))
    x[2, ::2], x[2, 1::2] = 0.0, -0.0
    x[3, :30] = -np.inf
    x[4] = -np.abs(x[4])
    return x.astype(np.float32)


def by_sorting(x, weights, target):
    """[R]: the definition, float64."""
    enough = [[t for t in row if w[row >= t].sum() >= target] for row, w in zip(x, weights, strict=True)]
    return [max(found) if found else np.nan for found in enough]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.float32])
def test_equals_the_definition(form, dtype):
    """To the last bit: weights are whole numbers, whose sums are exact."""
    x = numbers()
    weights = np.random.default_rng(2).integers(0, 5, x.shape)
    search = jax.jit(FORMS[form])
    for target in (1, 7, 40, 90):
        found = search(x, jnp.asarray(weights, dtype), jnp.full((len(x), 1), target, dtype))
        np.testing.assert_array_equal(found[:, 0], by_sorting(x, weights, target))


def test_any_shape():
    """Rows of several axes, and one target for all or one each."""
    x = np.random.default_rng(3).normal(size=(2, 3, 50)).astype(np.float32)
    ones = jnp.ones(x.shape, jnp.int32)
    targets = np.arange(1, 7).reshape(2, 3, 1)
    expected = np.take_along_axis(-np.sort(-x), targets - 1, axis=-1)
    np.testing.assert_array_equal(least_of_most(x, ones, targets), expected)
    np.testing.assert_array_equal(least_of_most(x, ones, 4), -np.sort(-x)[..., 3:4])


def test_on_a_gpu_it_is_one_kernel(lower_for_cuda):
    """Chosen when the program is lowered."""
    x = jax.ShapeDtypeStruct((4, 1000), jnp.float32)
    text = lower_for_cuda(lambda x: least_of_most(x, jnp.ones(x.shape, jnp.int32), 5), x)
    assert text.count("triton") == 1 and "stablehlo.while" not in text


@pytest.mark.parametrize("top_k", [0, 30])
@pytest.mark.parametrize("top_p", [None, 0.9, 1.0])
def test_the_filters_of_a_gpu_keep_the_same(top_k, top_p):
    """As XLA's form, which `kernels.test_filters` compares with the definition; to the last bit, padded or not."""
    for rows in (1, 20):
        x = jnp.asarray(np.random.default_rng(4).normal(size=(rows, 100)) * 3, jnp.float32)
        x = x.at[:, 7].set(-jnp.inf)
        nucleus = None if top_p is None else jnp.full(1, top_p)
        found = gpu.filtered(x, top_k, nucleus, interpret=True)
        np.testing.assert_array_equal(found, xla.filtered(x, top_k, nucleus))


def test_gradients_of_what_stays():
    """One of each logit that stays, none of the others."""
    x = jnp.asarray(np.random.default_rng(5).normal(size=(2, 30)), jnp.float32)

    def total(x):
        kept = filter_logits(x, 10, 0.7)
        return jnp.sum(jnp.where(jnp.isfinite(kept), kept, 0.0))

    np.testing.assert_array_equal(jax.grad(total)(x), jnp.isfinite(filter_logits(x, 10, 0.7)))


def test_filters_on_a_gpu_are_one_kernel(lower_for_cuda):
    """The same for numbers of rows that differ little."""
    kernels = set()
    for rows in (40, 200):
        x = jax.ShapeDtypeStruct((rows, 1000), jnp.float32)
        text = lower_for_cuda(lambda x: filter_logits(x, 50, 0.9), x)
        assert text.count("triton") == 1 and "stablehlo.while" not in text
        kernels.add(re.search(r"mhlo.backend_config = (\{.*?\}), operand", text)[1])
    assert len(kernels) == 1
