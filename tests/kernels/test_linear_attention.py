"""Linear attention against the dense float64 formula over all pairs, its gradient in closed form included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import example, given
from hypothesis import strategies as st
from systems import some_slow

from vargen.kernels.linear_attention import linear_attention, reference
from vargen.kernels.linear_attention.shapes import SHAPES

IMPLEMENTATIONS = ["xla", "reference", "tpu_interpret", "gpu_interpret"]
KINDS = [None, "constant", "head", "channel"]


def formula(q, k, v, g, initial, causal, scale, out_grad, state_grad):
    """o and S, and the gradients of q, k, v, g [B, N, H, K] and initial; float64, all pairs at once."""
    n = q.shape[1]
    c = np.cumsum(g, axis=1)
    decay = np.exp(-np.abs(c[:, :, None] - c[:, None]))
    decay *= np.tril(np.ones((n, n)))[:, :, None, None] if causal else 1
    to_i, to_end = np.exp(c), np.exp(c[:, -1:] - c)
    a = scale * np.einsum("bihc,bijhc,bjhc->bijh", q, decay, k)
    seen = np.einsum("bhcv,bihv->bihc", initial, out_grad) * to_i * scale
    kept = np.einsum("bhcv,bjhv->bjhc", state_grad, v) * to_end
    out = np.einsum("bijh,bjhv->bihv", a, v) + scale * np.einsum("bihc,bhcv->bihv", q * to_i, initial)
    state = np.einsum("bjhc,bjhv->bhcv", k * to_end, v) + to_i[:, -1, :, :, None] * initial
    pairs = scale * np.einsum("bihv,bjhv->bijh", out_grad, v)[..., None] * decay
    dq = np.einsum("bijhc,bjhc->bihc", pairs, k) + seen
    dk = np.einsum("bijhc,bihc->bjhc", pairs, q) + kept
    dv = np.einsum("bijh,bihv->bjhv", a, out_grad) + np.einsum("bjhc,bhcv->bjhv", k * to_end, state_grad)
    dinitial = np.einsum("bihc,bihv->bhcv", scale * q * to_i, out_grad)
    dinitial += to_i[:, -1, :, :, None] * state_grad
    pairs = pairs * q[:, :, None] * k[:, None]
    through = to_i[:, -1] * (initial * state_grad).sum(-1)
    dg = np.zeros_like(g)
    for t in range(n):  # what passes from before t to t or later, or back
        dg[:, t] = pairs[:, t:, :t].sum((1, 2)) + pairs[:, :t, t:].sum((1, 2)) + through
        dg[:, t] += (q * seen)[:, t:].sum(1) + (k * kept)[:, :t].sum(1)
    return out, state, (dq, dk, dv, dg, dinitial)


def inputs(rng, shape, low=-6.0):
    """q, k, v, log_decay, initial, and gradients of o and S; decays of 10^low to 1, some of them 1."""
    q, _, v, decay = shape.shapes
    state = (shape.batch, shape.heads, shape.keys, shape.values)
    arrays = [rng.normal(size=s) for s in (q, q, v, state, v, state)]
    if decay is not None:
        decay = np.log(10) * rng.uniform(low, 0, decay) * (rng.uniform(size=decay) < 0.8)
    arrays.insert(3, decay)
    return [None if x is None else np.float32(x) for x in arrays]


def wide(x, shape):
    """Log-decays of any kind as float64 [B, N, H, K]."""
    x = np.zeros(()) if x is None else np.asarray(x, np.float64)
    return np.broadcast_to(x[..., None] if x.ndim in (1, 3) else x, shape.shapes[0])


def close(found, expected, tolerance, name, magnitudes=None):
    """The largest error relative to the largest number, or to the largest sum of magnitudes where given."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, name
    assert np.isfinite(found).all(), name
    largest = np.abs(expected if magnitudes is None else magnitudes).max()
    assert np.abs(found - expected).max() <= tolerance * largest, name


@functools.partial(jax.jit, static_argnames=("causal", "scale", "chunk", "implementation"))
def everything(arrays, out_grad, state_grad, causal=True, scale=1.0, **options):
    """o, S, and the gradients of the first five arrays. Bidirectional with decay: without states."""
    *rows, initial = arrays
    if not causal and rows[3] is not None:
        call = functools.partial(linear_attention, causal=False, scale=scale, **options)
        out, pull = jax.vjp(call, *rows)
        return out, None, (*pull(out_grad), None)

    def call(*arrays):
        options_ = dict(initial=arrays[-1], return_state=True, causal=causal, scale=scale, **options)
        return linear_attention(*arrays[:-1], **options_)

    (out, state), pull = jax.vjp(call, *rows, initial)
    return out, state, pull((out_grad, state_grad))


def check(shape, causal, tolerance, dtype=jnp.float32, **options):
    arrays = inputs(np.random.default_rng(0), shape)
    rounded = [jnp.asarray(x, dtype) for x in arrays[:3]]
    grad = jnp.asarray(arrays[5], dtype)
    arrays = [
        *(np.asarray(x, np.float64) for x in rounded),
        arrays[3],
        arrays[4],
        np.float64(grad),
        arrays[6],
    ]
    if not causal and arrays[3] is not None:
        arrays[4], arrays[6] = np.zeros_like(arrays[4]), np.zeros_like(arrays[6])
    found = everything((*rounded, *arrays[3:5]), grad, arrays[6], causal, 0.3, **options)
    q, k, v, g, initial, *grads = (None if x is None else np.float64(x) for x in arrays)
    axes = {"constant": (0, 1, 3), "head": 3}.get(shape.decay)

    def expected(q, k, v, initial, *grads):
        # Without decay the bidirectional form adds `initial` and returns the sum, as the causal one does at its end.
        out, state, rest = formula(q, k, v, wide(g, shape), initial, causal, 0.3, *grads)
        rest = list(rest)
        rest[3] = rest[3] if axes is None else rest[3].sum(axes)
        return out, state, *rest

    # Decays are positive: of absolute inputs, every sum is that of its terms' magnitudes.
    sums, magnitudes = (expected(*(f(x) for x in (q, k, v, initial, *grads))) for f in (np.asarray, np.abs))
    assert found[0].dtype == dtype
    names = ("o", "state", "dq", "dk", "dv", "dlog_decay", "dinitial")
    for name, x, y, size in zip(names, (*found[:2], *found[2]), sums, magnitudes, strict=True):
        if x is not None:
            close(x, y, tolerance, name, size)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", some_slow(KINDS, ("constant",)))
def test_causal(implementation, kind):
    check(SHAPES["tiny"]._replace(decay=kind), True, 2e-6, implementation=implementation, chunk=16)


@pytest.mark.parametrize(
    "implementation, kind",
    [("xla", None), ("xla", "constant"), ("xla", "head"), *((name, "channel") for name in IMPLEMENTATIONS)],
)
def test_bidirectional(implementation, kind):
    check(SHAPES["tiny"]._replace(decay=kind), False, 2e-6, implementation=implementation, chunk=16)


@pytest.mark.parametrize(
    "implementation, kind",
    [("xla", "head"), ("xla", "channel"), ("tpu_interpret", "channel"), ("gpu_interpret", "head")],
)
def test_bfloat16(implementation, kind):
    """Two bfloat16 roundings (2^-9 each) of the largest product, over the float32 sums."""
    shape = SHAPES["tiny"]._replace(decay=kind)
    check(shape, True, 8e-3, jnp.bfloat16, implementation=implementation, chunk=16)


@pytest.mark.parametrize("kind", [None, "head"])
def test_bidirectional_bfloat16(kind):
    """Of which a CPU lacks some products."""
    check(SHAPES["tiny"]._replace(decay=kind), False, 8e-3, jnp.bfloat16, implementation="xla", chunk=16)


def test_wide_values_and_keys():
    """More than one tile of keys and of values, none a power of 2."""
    check(
        SHAPES["tiny"]._replace(rows=20, batch=1, keys=72, values=144),
        True,
        2e-6,
        implementation="gpu_interpret",
    )


@pytest.mark.slow
@examples(5)
@example(n=1, kind="constant", chunk=None)
@example(n=28, kind="constant", chunk=1)
@given(n=st.integers(1, 70), kind=st.sampled_from(KINDS), chunk=st.sampled_from([None, 1, 4, 64]))
def test_drawn_lengths(n, kind, chunk):
    check(SHAPES["tiny"]._replace(rows=n, decay=kind), True, 2e-6, chunk=chunk)


@pytest.mark.parametrize("decays", ["all 1e-6", "1e-6 to 1", "almost 1"])
@pytest.mark.parametrize("kind", [pytest.param("head", marks=pytest.mark.slow), "channel"])
def test_4096_positions(kind, decays):
    """Each result is within 1e-5 of its own largest: gradients of tiny decays are tiny themselves."""
    shape = SHAPES["tiny"]._replace(batch=1, rows=4096, keys=4, values=4, decay=kind)
    arrays = inputs(np.random.default_rng(0), shape)
    if decays != "1e-6 to 1":
        arrays[3] = np.full_like(arrays[3], np.log(1e-6) if decays == "all 1e-6" else -1e-4)
    found = everything(tuple(arrays[:5]), *arrays[5:])
    with jax.enable_x64():
        arrays = [x.astype(np.float64) for x in arrays]
        options = dict(scale=1.0, diagonal=True, dtype=jnp.float64)
        out, state = jax.jit(functools.partial(reference.forward, **options))(*arrays[:5])
        grads = jax.jit(functools.partial(reference.backward, **options))(*arrays)
    for i, (x, y) in enumerate(zip((*found[:2], *found[2]), (out, state, *grads), strict=True)):
        close(x, y, 1e-5, i)


def test_a_state_handed_on():
    q, k, v, g, initial, *_ = inputs(np.random.default_rng(0), SHAPES["tiny"], low=-1)
    run = functools.partial(linear_attention, return_state=True, chunk=8)
    whole, end = run(q, k, v, g, initial=initial)
    outs, state = [], initial
    for rows in (slice(0, 19), slice(19, 36), slice(36, 37)):
        out, state = run(q[:, rows], k[:, rows], v[:, rows], g[:, rows], initial=state)
        outs.append(out)
    np.testing.assert_allclose(np.concatenate(outs, 1), whole, atol=2e-5)
    np.testing.assert_allclose(state, end, atol=2e-5)


@pytest.mark.slow
def test_under_transformations():
    """The gradient through jit, scan, remat and vmap is that of calls one by one."""
    rng = np.random.default_rng(0)
    arrays = [inputs(rng, SHAPES["tiny"]._replace(batch=1, rows=18), low=-1)[:4] for _ in range(2)]

    def loss(q, k, v, g):
        def body(v, _):
            return linear_attention(q, k, v, g, scale=0.1, chunk=8), None

        return jnp.sum(jax.lax.scan(jax.checkpoint(body), v, length=2)[0] ** 2)

    def plain(q, k, v, g):
        again = linear_attention(q, k, linear_attention(q, k, v, g, scale=0.1), g, scale=0.1)
        return jnp.sum(again**2)

    found = jax.jit(jax.vmap(jax.grad(loss, (0, 3))))(*map(np.stack, zip(*arrays, strict=True)))
    for i, one in enumerate(arrays):
        for x, y in zip(found, jax.grad(plain, (0, 3))(*one), strict=True):
            close(x[i], y, 1e-5, i)


def test_nothing_is_kept_per_position():
    """Temporaries of the gradient stay under a quarter of what all states would take."""
    n, width = 2048, 64
    row = jax.ShapeDtypeStruct((1, n, 1, width), jnp.float32)
    run = jax.jit(jax.grad(lambda *args: jnp.sum(linear_attention(*args) ** 2), (0, 1, 2, 3)))
    memory = run.lower(row, row, row, row).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * n * width * width / 4


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(k=np.zeros((1, 4, 2, 5))), "q, k, v: expected"),
        (dict(v=np.zeros((1, 3, 2, 5))), "q, k, v: expected"),
        (dict(log_decay=np.zeros(3)), "log_decay: expected"),
        (dict(initial=np.zeros((1, 2, 8, 8))), "initial: expected"),
        (dict(chunk=12), "chunk: expected a power of 2, found 12"),
        (dict(implementation="cuda"), "found 'cuda'"),
        (
            dict(causal=False, log_decay=np.zeros(2), return_state=True),
            "expected causal=True or no log_decay",
        ),
        (dict(causal=False, log_decay=np.zeros(2), initial=np.zeros((1, 2, 8, 12))), "expected causal=True"),
        (dict(implementation="tpu"), "needs a program lowered for tpu"),
        (dict(implementation="gpu"), "needs a program lowered for cuda"),
    ],
)
def test_refused(change, message):
    q, k, v, *_ = inputs(np.random.default_rng(0), SHAPES["tiny"]._replace(batch=1, rows=4))
    with pytest.raises(ValueError, match=message):
        linear_attention(**(dict(q=q, k=k, v=v) | change))


def accelerated(kind):
    """A function whose program holds forward and backward, and bfloat16 shapes for it."""
    shapes = SHAPES["small"]._replace(decay=kind).shapes
    shapes = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in shapes if s is not None]

    def run(*args):
        out, pull = jax.vjp(linear_attention, *args)
        return out, pull(out)

    return run, *shapes


@pytest.mark.parametrize("kind", [None, "head", "channel"])
def test_compiles_for_tpu(compile_for_tpu, kind):
    # Forward; states again, gradients.
    assert compile_for_tpu(*accelerated(kind)).as_text().count('custom_call_target="tpu_custom_call"') == 3


@pytest.mark.parametrize("kind", [None, "head", "channel"])
def test_lowers_for_cuda(lower_for_cuda, kind):
    # States, outputs; states again, their gradients, gradients of v, of the others.
    assert lower_for_cuda(*accelerated(kind)).count("@__gpu$xla.gpu.triton(") == 6
