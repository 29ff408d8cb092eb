"""A product of few rows with what stands around it, against the definition in float64."""

import functools
import re

import jax
import jax.numpy as jnp
import jax.test_util  # noqa: F401
import numpy as np
import pytest
from scipy.special import erf

from vargen.kernels import Matrix, Norming, Onto, Part, few_rows

CASES = {
    # batch, rows, inputs, outputs, options
    "plain": (2, 1, 24, (40,), {}),
    "several": (1, 3, 40, (24, 40, 16), dict(norm="rms")),
    "modulated": (2, 3, 300, (33,), dict(norm="layer", modulated="rows", act="gelu")),
    "one_of_many": (2, 1, 48, (24,), dict(norm="layer", own=True, modulated="at", act="silu", onto=True)),
    "shared": (3, 2, 20, (20,), dict(norm="layer", own=True, modulated="one", act="gelu_tanh", onto=True)),
    "gated": (2, 2, 32, (50, 50), dict(norm="rms", own=True, act="swiglu")),
    "geglu": (2, 1, 16, (20, 20), dict(act="geglu", bias=True)),
    "sigmoid": (1, 1, 16, (20,), dict(act="gelu_sigmoid", bias=True, residual=True)),
    "many": (4, 6, 300, (33,), dict(norm="layer", modulated="rows", act="gelu")),
    "eight_bits": (2, 1, 32, (24,), dict(bits=True, bias=True)),
}
# More rows, in tiles: of 16 bits, and without the norm.
TILED = {
    "tiles": (2, 40, 70, (48,), dict(bias=True, act="gelu_tanh")),
    "tiles_onto": (2, 20, 100, (40,), dict(modulated="one", onto=True)),
    "tiles_of_many": (2, 70, 24, (24,), dict(modulated="at", act="silu", onto=True)),
    "tiles_of_several": (2, 40, 70, (48, 100, 8), dict(bias=True, act="silu")),
    "tiles_eight_bits": (1, 33, 32, (24,), dict(bits=True, bias=True, residual=True)),
}
ACTIVATIONS = {
    "none": lambda x: x,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "gelu_sigmoid": lambda x: x / (1 + np.exp(-1.702 * x)),
}


def case(name, dtype=jnp.float32):
    """Arguments of the call and, in float64, what it gives."""
    batch, n, size, outputs, options = (CASES | TILED)[name]
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    x, bias = draw(batch, n, size) + 0.5, options.get("bias") or "onto" in options
    matrices = [
        Matrix(
            jnp.asarray(rng.integers(-127, 128, (size, f)), jnp.int8) if "bits" in options else draw(size, f),
            draw(f) / 100 if "bits" in options else None,
            draw(f) if bias else None,
        )
        for f in outputs
    ]
    norm, onto, y = None, None, np.asarray(x, np.float64)
    places = dict(rows=n, at=7, one=1).get(options.get("modulated"), 1)
    values = draw(1 if "shared" in name else batch, places, 3, size)
    at = jnp.int32(4) if options.get("modulated") == "at" else None
    parts = [Part(values, at, i) for i in range(3)]
    wide = np.asarray(values, np.float64)[:, 4:5] if at is not None else np.asarray(values, np.float64)
    if "norm" in options:
        own = dict(scale=draw(size)) if "own" in options else {}
        own |= dict(bias=draw(size)) if own and options["norm"] == "layer" else {}
        modulated = "modulated" in options
        norm = Norming(own, *(parts[:2] if modulated else (None, None)), options["norm"], 1e-6)
        y = y - y.mean(-1, keepdims=True) if options["norm"] == "layer" else y
        y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6)
        y = y * np.asarray(own.get("scale", 1), np.float64) + np.asarray(own.get("bias", 0), np.float64)
        y = y * (1 + wide[:, :, 0]) + wide[:, :, 1] if modulated else y
    found = [
        y @ np.asarray(m.kernel, np.float64) * (1 if m.scale is None else np.asarray(m.scale, np.float64))
        + (0 if m.bias is None else np.asarray(m.bias, np.float64))
        for m in matrices
    ]
    act = options.get("act", "none")
    if act in ("swiglu", "geglu"):
        y = ACTIVATIONS[dict(swiglu="silu", geglu="gelu")[act]](found[0]) * found[1]
    else:
        y = ACTIVATIONS[act](np.concatenate(found, -1))
    if options.keys() & {"onto", "residual"}:
        residual, gated = draw(batch, n, outputs[0]), "onto" in options
        gate = Part(values[..., : outputs[0]], at, 2) if gated else None
        onto = Onto(residual, gate)
        y = np.asarray(residual, np.float64) + y * (wide[:, :, 2, : outputs[0]] if gated else 1)
    return functools.partial(few_rows, x, matrices, norm=norm, act=act, onto=onto, dtype=dtype), y


@pytest.mark.parametrize("implementation", ["xla", "gpu_interpret"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition(name, implementation):
    """2e-6 of the largest."""
    call, expected = case(name)
    found = jnp.concatenate(call(implementation=implementation), axis=-1)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["several", "modulated", "one_of_many", "gated", "eight_bits", *TILED])
def test_bfloat16(name):
    """As near to the definition, of the same rounded inputs, as what XLA makes of it, in the root mean square."""
    call, expected = case(name, jnp.bfloat16)
    errors = {}
    for implementation in ("xla", "gpu_interpret"):
        found = jnp.concatenate(call(implementation=implementation), axis=-1)
        assert found.dtype == jnp.bfloat16
        errors[implementation] = np.std(np.asarray(found, np.float64) - expected) / np.std(expected)
    assert errors["gpu_interpret"] <= min(1e-2, 1.05 * errors["xla"]), errors


@pytest.mark.parametrize("name", [*CASES, *TILED])
def test_one_launch_on_a_gpu(name, lower_for_cuda):
    """Chosen when the program is lowered."""
    call, _ = case(name, jnp.bfloat16)
    assert lower_for_cuda(call).count("triton") == 1


@pytest.mark.parametrize("few, many", [(1, 4), (9, 16), (36, 60), (100, 250)])
def test_steps_share_a_kernel(few, many, lower_for_cuda):
    """That differ in their rows alone: the same program and grid."""
    kernels = set()
    for n in (few, many):
        x, values = jnp.zeros((2, n, 64), jnp.bfloat16), jnp.zeros((2, 1, 6, 48), jnp.bfloat16)
        matrix = Matrix(jnp.zeros((64, 48), jnp.bfloat16))
        onto = Onto(jnp.zeros((2, n, 48), jnp.bfloat16), Part(values, None, 0))
        text = lower_for_cuda(functools.partial(few_rows, x, [matrix], onto=onto, dtype=jnp.bfloat16))
        kernels.add(re.search(r"mhlo.backend_config = (\{.*?\}), operand", text)[1])
    assert len(kernels) == 1


def test_gradients_are_those_of_the_definition():
    """Of the kernel's call, by finite differences, 1e-3."""
    rng = np.random.default_rng(1)
    x, kernel, residual, values = (
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 1, 6), (6, 6), (2, 1, 6), (2, 3, 3, 6))
    )

    def call(x, kernel, residual, values):
        scale, shift, gate = (Part(values, jnp.int32(1), i) for i in range(3))
        norm, onto = Norming({}, scale, shift, "layer", 1e-6), Onto(residual, gate)
        options = dict(act="silu", onto=onto, implementation="gpu_interpret")
        return few_rows(x, [Matrix(kernel)], norm=norm, **options)[0]

    jax.test_util.check_grads(call, (x, kernel, residual, values), 1, modes=["rev"], atol=1e-3, rtol=1e-3)
