"""3x3 convolutions by Winograd's form against sums over shifted images in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen.tokenizers import winograd
from vargen.tokenizers.layers import conv


def dense(x, kernel):
    """The convolution by its definition, in float64."""
    padded = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    shifted = [(padded[:, i : i + height, j : j + width], kernel[i, j]) for i in range(3) for j in range(3)]
    return sum(part @ np.float64(k) for part, k in shifted)


def dense_gradients(x, kernel, g):
    """At x and at the kernel, in float64: a convolution turned around, and correlations with shifted images."""
    padded = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    at_kernel = [
        [np.einsum("bhwc,bhwo->co", padded[:, i : i + height, j : j + width], g) for j in range(3)]
        for i in range(3)
    ]
    return dense(g, kernel[::-1, ::-1].swapaxes(2, 3)), np.array(at_kernel)


def numbers(shape, features):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], shape)
    kernel = jax.random.normal(keys[1], (3, 3, shape[-1], features)) / (9 * shape[-1]) ** 0.5
    return x, kernel, jax.random.normal(keys[2], (*shape[:3], features))


@pytest.mark.parametrize(
    ("shape", "features"), [((2, 4, 6, 3), 5), ((2, 24, 32, 3), 5)], ids=["one strip", "three strips"]
)
def test_values_and_gradients_are_the_convolutions(shape, features):
    x, kernel, g = map(np.asarray, numbers(shape, features))
    assert (winograd._rows(*shape[:3]) < shape[1]) == (shape[1] == 24)
    y = jax.jit(winograd.winograd)(x, kernel)
    np.testing.assert_allclose(y, dense(x, kernel), rtol=0, atol=5e-6)
    for found, expected in zip(
        jax.jit(winograd.gradients)(x, kernel, g), dense_gradients(x, kernel, g), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_the_tokenizers_layer_takes_it_on_a_cpu_with_gradients():
    x, kernel, g = numbers((2, 16, 16, 64), 64)
    layer = conv(64, dtype=jnp.float32)
    params = dict(kernel=kernel, bias=jnp.zeros(64))

    def run(x, kernel):
        return jnp.vdot(layer.apply(dict(params=dict(params, kernel=kernel)), x), g)

    gradient = jax.jit(jax.grad(run, (0, 1)))
    assert "convolution" not in gradient.lower(x, kernel).as_text()
    for found, expected in zip(
        gradient(x, kernel), dense_gradients(*map(np.asarray, (x, kernel, g))), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 16, 16, 32), "float32"), ((2, 15, 16, 64), "float32"), ((2, 16, 16, 64), "bfloat16")],
    ids=["few channels", "an odd side", "bfloat16"],
)
def test_others_take_the_direct_form(shape, dtype):
    x, kernel, _ = (a.astype(dtype) for a in numbers(shape, 64))
    assert jax.jit(winograd.convolve).lower(x, kernel).as_text().count("stablehlo.convolution") == 1


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_keep_their_own(platform):
    x, kernel, _ = numbers((2, 16, 16, 64), 64)
    text = jax.jit(winograd.convolve).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == 1 and "dot_general" not in text


def test_results_take_no_memory_before_their_turn():
    x, kernel, _ = numbers((1, 64, 64, 64), 64)

    def many(x):
        for _ in range(8):
            x = jnp.tanh(winograd.winograd(x, kernel))
        return x

    assert jax.jit(many).lower(x).compile().memory_analysis().temp_size_in_bytes < 6 * x.nbytes
