"""Linear scans against float64 and complex128 recurrences in NumPy, and their adjoints in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st
from systems import some_slow

from vargen.kernels.linear_scan import gpu, grid_scan, linear_scan, tpu
from vargen.kernels.linear_scan.reference import linear_scan_reference
from vargen.kernels.linear_scan.shapes import SHAPES

XLA = ["sequential", "associative", "chunked"]
ALL = [*XLA, "tpu_interpret", "gpu_interpret"]


@pytest.fixture(autouse=True)
def small_blocks(request, monkeypatch):
    """Tiny inputs are cut as large ones are: ragged blocks of time and of channels, several of each."""
    if {"compile_for_tpu", "lower_for_cuda"} & set(request.fixturenames):
        return
    monkeypatch.setattr(tpu, "ROWS", 16)
    monkeypatch.setattr(tpu, "CHANNELS", 16)
    monkeypatch.setattr(gpu, "CHANNELS", 16)
    monkeypatch.setattr(gpu, "SMALLEST", 16)
    monkeypatch.setattr(gpu, "UNROLL", 2)


def numbers(rng, kind, *shape):
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape)).astype(np.complex64) if kind == "complex" else np.float32(x)


def coefficients(rng, kind, *shape):
    """Of modulus up to 1, some of them exactly 0 and some 1."""
    a = numbers(rng, kind, *shape)
    a *= rng.uniform(size=shape) / np.abs(a)
    choice = rng.uniform(size=shape)
    return np.where(choice < 0.1, 0, np.where(choice > 0.9, 1, a)).astype(a.dtype)


def recurrence(a, b, initial, axis, reverse):
    """h by the definition, in float64 or complex128."""
    wide = np.complex128 if np.iscomplexobj(b) or np.iscomplexobj(a) else np.float64
    a = np.moveaxis(np.broadcast_to(a, b.shape).astype(wide), axis, 0)
    b = np.moveaxis(b.astype(wide), axis, 0)
    h, out = initial.astype(wide), np.zeros_like(b)
    for t in range(len(b))[:: -1 if reverse else 1]:
        h = out[t] = a[t] * h + b[t]
    return np.moveaxis(out, 0, axis)


def adjoint(a, b, initial, axis, reverse, dh):
    """Cotangents of a, b and initial for dh (JAX's convention: transposed, not conjugated)."""
    h = np.moveaxis(recurrence(a, b, initial, axis, reverse), axis, 0)
    full, dh = np.moveaxis(np.broadcast_to(a, b.shape), axis, 0), np.moveaxis(dh, axis, 0)
    da, db = np.zeros_like(h), np.zeros_like(h)
    carry, order = np.zeros_like(h[0]), list(range(len(h)))[:: 1 if reverse else -1]
    for place, t in enumerate(order):
        db[t] = dh[t] + carry
        da[t] = db[t] * (h[order[place + 1]] if place + 1 < len(order) else initial)
        carry = full[t] * db[t]
    da, db = np.moveaxis(da, 0, axis), np.moveaxis(db, 0, axis)
    da = da.sum(tuple(range(b.ndim - a.ndim)))
    return da.sum(tuple(i for i in range(a.ndim) if a.shape[i] < da.shape[i]), keepdims=True), db, carry


def close(found, expected, relative=1e-5, magnitudes=None):
    """Errors relative to the largest number, or to the largest sum of magnitudes where given."""
    assert found.shape == expected.shape
    largest = np.abs(expected if magnitudes is None else magnitudes).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * max(1e-30, largest))


def check(a, b, initial, dh, relative=1e-5, axis=1, reverse=False, implementation=None):
    """h and all three cotangents."""

    @jax.jit
    def run(a, b, initial, dh):
        scan = functools.partial(linear_scan, axis=axis, reverse=reverse, implementation=implementation)
        h, pull = jax.vjp(lambda a, b, initial: scan(a, b, initial=initial), a, b, initial)
        return h, pull(dh)

    h, cotangents = run(a, b, initial, dh)
    close(h, recurrence(a, b, initial, axis, reverse), relative)
    expected = adjoint(a, b, initial, axis, reverse, dh)
    # Of absolute inputs, every sum is that of its terms' magnitudes: a cotangent may sum over broadcast axes.
    magnitudes = adjoint(*map(np.abs, (a, b, initial)), axis, reverse, np.abs(dh))
    for found, wanted, sizes in zip(cotangents, expected, magnitudes, strict=True):
        close(found, wanted, relative, sizes)


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("reverse", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_values_and_gradients(implementation, reverse, kind):
    rng = np.random.default_rng(0)
    shape = SHAPES["ragged"]
    a, b, dh = coefficients(rng, kind, *shape), numbers(rng, kind, *shape), numbers(rng, kind, *shape)
    check(a, b, numbers(rng, kind, 2, 20), dh, reverse=reverse, implementation=implementation)


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("shape", some_slow([(20,), (37, 1), (2, 37, 1), (2, 1, 1)], [(37, 1), (2, 1, 1)]))
def test_coefficients_shared_along_axes(implementation, shape):
    rng = np.random.default_rng(1)
    b, dh, initial = (numbers(rng, "real", *s) for s in ((2, 37, 20), (2, 37, 20), (2, 20)))
    check(coefficients(rng, "real", *shape), b, initial, dh, reverse=True, implementation=implementation)


@pytest.mark.parametrize("implementation", ["xla", "gpu_interpret"])
@pytest.mark.parametrize("axis, a_shape", [(0, (9, 2, 3)), (2, (2, 3, 9)), (-1, (3, 1)), (1, (1, 9, 1, 4))])
def test_any_axis(implementation, axis, a_shape):
    rng = np.random.default_rng(2)
    shape = {0: (9, 2, 3), 1: (2, 9, 3, 4)}.get(axis, (2, 3, 9))
    b, dh = numbers(rng, "real", *shape), numbers(rng, "real", *shape)
    initial = numbers(rng, "real", *np.delete(shape, axis))
    check(coefficients(rng, "real", *a_shape), b, initial, dh, axis=axis, implementation=implementation)


@examples(8)
@given(
    n=st.integers(1, 150), implementation=st.sampled_from(XLA), reverse=st.booleans(), seed=st.integers(0, 99)
)
def test_drawn_lengths(n, implementation, reverse, seed):
    rng = np.random.default_rng(seed)
    a, b, dh = (
        coefficients(rng, "real", 2, n, 3),
        numbers(rng, "real", 2, n, 3),
        numbers(rng, "real", 2, n, 3),
    )
    check(a, b, numbers(rng, "real", 2, 3), dh, reverse=reverse, implementation=implementation)


@pytest.mark.parametrize("implementation", ["tpu_interpret", "gpu_interpret"])
@pytest.mark.parametrize("n", [1, 3, 32])
def test_lengths_of_the_kernels(implementation, n):
    rng = np.random.default_rng(n)
    a, b, dh = (
        coefficients(rng, "real", 1, n, 3),
        numbers(rng, "real", 1, n, 3),
        numbers(rng, "real", 1, n, 3),
    )
    check(a, b, numbers(rng, "real", 1, 3), dh, reverse=True, implementation=implementation)


def test_gradient_is_that_of_the_reference():
    """Complex cotangents in JAX's own convention, a real one for a real coefficient among complex numbers."""
    rng = np.random.default_rng(3)
    b, weight = numbers(rng, "complex", 2, 7, 3), numbers(rng, "complex", 2, 7, 3)
    initial = numbers(rng, "complex", 2, 3)
    for kind in ("complex", "real"):
        a = coefficients(rng, kind, 7, 3)

        def loss(a, b, initial, scan):
            return jnp.sum(jnp.abs(scan(a, b, initial=initial) - weight) ** 2)

        found, expected = (
            jax.jit(jax.grad(functools.partial(loss, scan=scan), (0, 1, 2)))(a, b, initial)
            for scan in (linear_scan, linear_scan_reference)
        )
        for x, y in zip(found, expected, strict=True):
            assert x.dtype == y.dtype
            close(x, np.asarray(y))


@pytest.mark.parametrize("implementation", ALL)
def test_bfloat16_is_carried_in_float32(implementation):
    """A sum of 300 ones would stall at 256 in bfloat16."""
    ones = jnp.ones((1, 300, 2), jnp.bfloat16)

    @jax.jit
    def run(a, b):
        h, pull = jax.vjp(functools.partial(linear_scan, implementation=implementation), a, b)
        return h, *pull(b)

    h, da, db = run(ones[:, :1], ones)
    assert h.dtype == da.dtype == db.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(h[0, [99, 299]]), [[100, 100], [300, 300]])
    np.testing.assert_array_equal(np.float32(db[0, 0]), 300)
    np.testing.assert_allclose(
        np.float32(da[0, 0]), np.sum(np.arange(300) * np.arange(300, 0, -1)), rtol=0.01
    )


def test_no_initial_means_zeros():
    rng = np.random.default_rng(4)
    a, b = coefficients(rng, "real", 3), numbers(rng, "real", 2, 5, 3)
    zeros = np.zeros((2, 3))
    close(linear_scan(a, b), recurrence(a, b, zeros, 1, False))
    close(linear_scan(0.5, b[:, :1]), b[:, :1])
    assert linear_scan(a, b[:, :0]).shape == (2, 0, 3)


@pytest.mark.parametrize("implementation", [None, "tpu_interpret", "gpu_interpret"])
def test_inside_other_transformations(implementation):
    """vmap over axes of a and b, rematerialised layers in lax.scan, under jit."""
    rng = np.random.default_rng(5)
    a, b = coefficients(rng, "real", 3, 7, 4), numbers(rng, "real", 2, 7, 3, 4)

    def layers(scan, a, b):
        one = jax.vmap(jax.vmap(lambda a, b: scan(a, b, axis=0)), (None, 0))
        step = jax.checkpoint(lambda x, _: (one(a, jnp.tanh(x)), None))
        return jnp.sum(jax.lax.scan(step, b.transpose(0, 2, 1, 3), length=2)[0] ** 2)

    scans = functools.partial(linear_scan, implementation=implementation), linear_scan_reference
    found, expected = (jax.jit(jax.grad(functools.partial(layers, s), (0, 1)))(a, b) for s in scans)
    for x, y in zip(found, expected, strict=True):
        close(x, np.asarray(y))


@pytest.mark.parametrize("implementation", ["sequential", "chunked"])
def test_gradient_keeps_no_intermediates(implementation):
    """At N = 4096 temporaries stay under 4 arrays like b; doubling would keep 2 log2(N) = 24."""
    b = jax.ShapeDtypeStruct((1, 4096, 64), jnp.float32)
    loss = jax.grad(lambda a, b: jnp.sum(linear_scan(a, b, implementation=implementation) ** 2), (0, 1))
    memory = jax.jit(loss).lower(b, b).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 4 * 4096 * 64
    a = jax.ShapeDtypeStruct((64,), jnp.float32)
    kept = jax.eval_shape(lambda a, b: jax.vjp(linear_scan, a, b)[1], a, b)
    assert sum(x.size for x in jax.tree.leaves(kept)) == 4096 * 64 + 64 + 64


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_compiles_for_tpu(dtype, compile_for_tpu):
    def loss(a, b, initial):
        return jnp.sum(jnp.abs(linear_scan(a, b, initial=initial)).astype(jnp.float32) ** 2)

    wide = "complex64" if dtype == "complex64" else "float32"
    b, initial = jax.ShapeDtypeStruct((2, 1024, 512), dtype), jax.ShapeDtypeStruct((2, 512), wide)
    text = compile_for_tpu(jax.grad(loss, (0, 1, 2)), b, b, initial).as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_lowers_for_cuda(dtype, lower_for_cuda):
    def loss(a, b):
        return jnp.sum(jnp.abs(jax.vmap(linear_scan)(a, b)).astype(jnp.float32) ** 2)

    b = jax.ShapeDtypeStruct((2, 2, 1024, 512), dtype)
    assert "triton" in lower_for_cuda(jax.grad(loss, (0, 1)), b, b)


def test_what_does_not_fit():
    b = jnp.zeros((2, 5, 3))
    for message, call in {
        r"a: expected a shape broadcastable to b's \(2, 5, 3\), found \(5,\)": lambda: linear_scan(
            jnp.zeros(5), b
        ),
        r"axis: expected one of the 3 axes of b, found 3": lambda: linear_scan(0.5, b, axis=3),
        r"initial: expected \(2, 3\) that float32 holds, found \(3,\)": lambda: linear_scan(
            0.5, b, initial=b[0, 0]
        ),
        r"found \(2, 3\) complex64": lambda: linear_scan(0.5, b, initial=b[:, 0] * 1j),
        "expected real or complex numbers, found int32": lambda: linear_scan(1, jnp.zeros((2, 5, 3), int)),
        "implementation: expected None": lambda: linear_scan(0.5, b, implementation="fast"),
        "'gpu': expected one of float32, bfloat16, complex64, found float16": lambda: linear_scan(
            jnp.float16(0.5), b.astype(jnp.float16), implementation="gpu"
        ),
        "needs a program lowered for tpu, found cpu": lambda: linear_scan(0.5, b, implementation="tpu"),
        "needs a program lowered for cuda, found cpu": lambda: linear_scan(0.5, b, implementation="gpu"),
        "a_col: expected a shape broadcastable": lambda: grid_scan(0.5, jnp.zeros(2), b, axes=(0, 1)),
        r"axes: expected two of the 3 axes of b, found \(1, -2\)": lambda: grid_scan(
            0.5, 0.5, b, axes=(1, -2)
        ),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


def grid(a_row, a_col, b, reverse):
    """h over axes 1 and 2 by the definition, in float64 or complex128."""
    b = b.astype(np.complex128 if np.iscomplexobj(b) else np.float64)
    a_row, a_col, h = np.broadcast_to(a_row, b.shape), np.broadcast_to(a_col, b.shape), np.zeros_like(b)
    up, left = 1 if reverse[0] else -1, 1 if reverse[1] else -1
    for i in range(b.shape[1])[::-up]:
        for j in range(b.shape[2])[::-left]:
            h[:, i, j] = b[:, i, j]
            if 0 <= i + up < b.shape[1]:
                h[:, i, j] += a_row[:, i, j] * h[:, i + up, j]
            if 0 <= j + left < b.shape[2]:
                h[:, i, j] += a_col[:, i, j] * h[:, i, j + left]
    return h


@pytest.mark.parametrize(
    "kind, reverse, axes, shared",
    [
        ("real", (False, False), (1, 2), False),
        ("real", (True, False), (1, 2), True),
        ("complex", (False, True), (1, 2), True),
        ("real", (True, True), (2, 1), False),
    ],
)
def test_grid(kind, reverse, axes, shared):
    """Values by a double loop; cotangents of b by that of the transposed map, of the rest by differences."""
    rng = np.random.default_rng(6)
    shape = (2, 4, 5, 3)
    b, weight = numbers(rng, kind, *shape), numbers(rng, kind, *shape)
    a_row, a_col = (coefficients(rng, kind, *((1, 1, 3) if shared else shape)) / 2 for _ in range(2))

    def swap(x):
        """The definition scans rows along axis 1; the call under test may have them along axis 2."""
        return x.swapaxes(-3, -2) if axes == (2, 1) else x

    def loss(h, xp=np):
        return xp.sum((h * weight).real)

    @jax.jit
    def run(a_row, a_col, b):
        scan = lambda *x: swap(grid_scan(*map(swap, x), axes=axes, reverse=reverse))  # noqa: E731
        return scan(a_row, a_col, b), jax.grad(lambda *x: loss(scan(*x), jnp), (0, 1, 2))(a_row, a_col, b)

    h, gradients = run(a_row, a_col, b)
    close(h, grid(a_row, a_col, b, reverse))
    # Central differences in float64 along one direction per argument; the loss is a polynomial.
    arguments, step = (
        [np.asarray(x, np.complex128 if kind == "complex" else float) for x in (a_row, a_col, b)],
        1e-6,
    )
    for i, gradient in enumerate(gradients):
        direction = numbers(rng, kind, *gradient.shape)
        ends = []
        for sign in (1, -1):
            moved = [x + sign * step * direction if j == i else x for j, x in enumerate(arguments)]
            ends.append(loss(grid(*moved, reverse)))
        expected = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(np.sum((gradient * direction).real), expected, rtol=1e-4, atol=1e-4)


def test_grid_keeps_its_state_alone():
    b = jax.ShapeDtypeStruct((2, 6, 7, 3), jnp.float32)
    kept = jax.eval_shape(lambda *x: jax.vjp(grid_scan, *x)[1], b, b, b)
    assert sum(x.size for x in jax.tree.leaves(kept)) == 3 * 2 * 6 * 7 * 3
