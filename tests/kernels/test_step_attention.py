"""Step-masked attention: every implementation against a dense float64 formula, forward and gradient."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st
from systems import some_slow

from vargen.kernels.dropout import draw_words, drop
from vargen.kernels.step_attention import call as core
from vargen.kernels.step_attention import merge, shapes, step_attention, xla
from vargen.kernels.step_attention.spans import edges, spans, visits

IMPLEMENTATIONS = ("reference", "xla", "tpu_interpret", "gpu_interpret")
LEVELS = shapes.levels((1, 2, 3, 4, 5))


def see(q_step, k_step, strict=False, window=None):
    """bool [.., N, M], by the definition."""
    q, k = np.asarray(q_step)[..., :, None], np.asarray(k_step)[..., None, :]
    seen = (k < q) if strict else (k <= q)
    return seen if window is None else seen & (k >= q - window)


def kept(words, keys, rate):
    """Which weights stay, bool [..., N, keys], of a word for each query: the hash in unsigned NumPy."""

    def mixed(x):
        x = (x ^ (x >> 16)) * np.uint32(0x21F0AAAD)
        x = (x ^ (x >> 15)) * np.uint32(0xD35A2D97)
        return x

    index = mixed(np.arange(keys, dtype=np.uint32))
    bits = mixed(np.asarray(words).astype(np.uint32)[..., None] ^ index ^ (index >> 15))
    return (bits ^ np.uint32(2**31)) >= rate * 2**32


def dense(q, k, v, seen, scale=None, d_out=None, d_lse=None, grown=1.0):
    """The definition in float64 NumPy: output and log-sum-exp, and with cotangents the gradients of q, k, v.

    `grown` [B, H, N, M]: what the weights are multiplied by after the softmax.
    """
    q, k, v = (np.asarray(x, np.float64).swapaxes(1, 2) for x in (q, k, v))
    repeat = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeat, axis=1), np.repeat(v, repeat, axis=1)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    seen = seen if seen.ndim == 2 else seen[:, None]
    weights = np.exp(scale * q @ k.swapaxes(-1, -2)) * seen
    total = weights.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = np.log(total[..., 0])
    weights = weights / np.where(total > 0, total, 1.0)
    out = weights * grown @ v
    if d_out is None:
        return out.swapaxes(1, 2), lse.swapaxes(1, 2)
    d_out, d_lse = (np.asarray(x, np.float64).swapaxes(1, 2) for x in (d_out, d_lse))
    d_weights = d_out @ v.swapaxes(-1, -2) * grown
    d_logits = weights * (d_weights - (d_out * out).sum(-1, keepdims=True) + d_lse[..., None])
    grads = scale * d_logits @ k, scale * d_logits.swapaxes(-1, -2) @ q
    grads += ((weights * grown).swapaxes(-1, -2) @ d_out,)
    fold = lambda x: x.reshape(x.shape[0], -1, repeat, *x.shape[2:]).sum(2)  # noqa: E731
    return tuple(x.swapaxes(1, 2) for x in (grads[0], fold(grads[1]), fold(grads[2])))


def inputs(seed, batch, n, m, heads, groups, dim, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    sizes = ((batch, n, heads, dim), (batch, m, groups, dim), (batch, m, groups, dim))
    sizes += ((batch, n, heads, dim), (batch, n, heads))
    return [jnp.asarray(rng.normal(size=s), dtype) for s in sizes]


def check(q_step, k_step, implementation, *, batch=2, heads=2, groups=1, dim=16, tolerance=1e-5, **options):
    """Forward, log-sum-exp and gradients; errors relative to the largest value."""
    n, m = q_step.shape[-1], k_step.shape[-1]
    q, k, v, d_out, d_lse = inputs(0, batch, n, m, heads, groups, dim, options.pop("dtype", jnp.float32))
    seen = see(q_step, k_step, options.get("strict", False), options.get("window"))
    d_lse = jnp.where(seen.any(-1)[..., None], d_lse, 0.0)
    grown = 1.0
    if rate := options.get("dropout"):
        options["words"] = draw_words(jax.random.key(1), (batch, heads, n))
        grown = by_steps(kept(options["words"], m, rate), q_step, k_step) / (1 - rate)

    @jax.jit
    def run(q, k, v):
        call = functools.partial(
            step_attention,
            q_step=q_step,
            k_step=k_step,
            return_lse=True,
            implementation=implementation,
            **options,
        )
        (out, lse), pull = jax.vjp(call, q, k, v)
        return out, lse, pull((d_out.astype(out.dtype), d_lse.astype(jnp.float32)))

    out, lse, grads = run(q, k, v)
    scale = options.get("scale")
    expected_out, expected_lse = dense(q, k, v, seen, scale, grown=grown)
    close = lambda a, b: np.testing.assert_allclose(  # noqa: E731
        np.asarray(a, np.float64),
        b,
        rtol=0,
        atol=tolerance * max(1.0, np.abs(b[np.isfinite(b)]).max(initial=0)),
    )
    assert out.dtype == v.dtype and lse.dtype == jnp.float32
    close(out, expected_out)
    close(lse, expected_lse)
    for found, wanted in zip(grads, dense(q, k, v, seen, scale, d_out, d_lse, grown), strict=True):
        close(found, wanted)


def by_steps(x, q_step, k_step):
    """x [B, H, N, M] of queries and keys as sorted by step, brought to where they came."""
    rows, keys = (np.argsort(np.atleast_2d(s), axis=-1, kind="stable") for s in (q_step, k_step))
    found = np.empty(x.shape)
    for b in range(len(x)):
        found[b][:, rows[b % len(rows)][:, None], keys[b % len(keys)]] = x[b]
    return found


CASES = {
    "levels": dict(q_step=LEVELS, k_step=LEVELS),
    "bidirectional": dict(q_step=np.zeros(20, int), k_step=np.zeros(33, int), groups=2),
    "strict_window": dict(q_step=LEVELS, k_step=LEVELS, strict=True, window=2),
    "cached": dict(q_step=np.arange(30, 37), k_step=np.arange(37), scale=0.7),
    "unsorted": dict(q_step=np.arange(37)[::-1] // 3, k_step=np.random.default_rng(1).permutation(37) // 3),
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", CASES)
def test_static_steps(name, implementation, small_blocks):
    check(implementation=implementation, **CASES[name])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_steps_of_each_example(implementation, small_blocks):
    rng = np.random.default_rng(2)
    steps = jnp.asarray(np.stack([rng.permutation(37), rng.permutation(37) // 4]))
    check(steps, steps, implementation, strict=True, window=3)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", some_slow(CASES, ("bidirectional", "strict_window", "cached")))
def test_dropout(name, implementation, small_blocks):
    """The same weights by every implementation, forward and backward."""
    check(implementation=implementation, dropout=0.3, **CASES[name])


def test_what_is_dropped():
    """At its rate, and as if drawn: neighbours in every direction together as often as any two."""
    rate, n = 0.1, 64
    words = np.asarray(draw_words(jax.random.key(0), (16, 8, n)))
    gone = ~kept(words, n, rate)
    values = jnp.ones((16, 8, n, n))
    found = np.asarray(drop(values, jnp.asarray(words)[..., None], np.arange(n, dtype=np.int32), rate))
    np.testing.assert_array_equal(found == 0, gone)
    np.testing.assert_allclose(found[~gone], 1 / (1 - rate), rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate))
    centred = (gone - rate) / deviation  # of mean 0 and variance 1, and so are products of independent ones
    wanted = [centred, *(centred * np.roll(centred, 1 << k, axis) for axis in range(4) for k in range(3))]
    wanted += [centred * np.roll(centred, 1, 3) * np.roll(centred, 2, 3), centred[:, :4] * centred[:, 4:]]
    for x in wanted:
        assert abs(x.mean()) < 4.5 / np.sqrt(x.size)  # standard deviations
    for axis in (2, 3):  # how many of a row, of a column
        counts = gone.sum(axis)
        assert abs(counts.var() / (n * rate * (1 - rate)) - 1) < 4.5 * np.sqrt(2 / counts.size)


@pytest.mark.parametrize("implementation", some_slow(IMPLEMENTATIONS, ("tpu_interpret", "reference")))
def test_dropout_with_steps_of_each_example(implementation, small_blocks):
    rng = np.random.default_rng(2)
    steps = jnp.asarray(np.stack([rng.permutation(37), rng.permutation(37) // 4]))
    check(steps, steps, implementation, strict=True, window=3, dropout=0.3)
    check(steps, steps, implementation, groups=2, dropout=0.3, dtype=jnp.bfloat16, tolerance=2e-2)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16(implementation):
    """Rounding of inputs is shared; weights, outputs and gradients are rounded to 8 bits: 2e-2 of the largest."""
    check(LEVELS, LEVELS, implementation, dtype=jnp.bfloat16, tolerance=2e-2)


@pytest.mark.parametrize("implementation", ["tpu_interpret", "gpu_interpret"])
@pytest.mark.parametrize("dim", [40, 256])
def test_head_sizes(implementation, dim):
    check(np.arange(20) // 3, np.arange(20) // 3, implementation, dim=dim, batch=1)


@pytest.mark.parametrize("implementation", some_slow(["tpu_interpret", "gpu_interpret"], ["gpu_interpret"]))
def test_many_blocks(implementation):
    """Several real blocks of queries and keys, whole and partial ones."""
    steps = np.sort(np.random.default_rng(0).integers(0, 9, 300))
    check(steps, steps, implementation, batch=1, groups=2)
    traced = jnp.asarray(np.random.default_rng(1).permutation(steps))
    check(traced, traced, implementation, batch=1, groups=2)
    check(steps, steps, implementation, batch=1, dropout=0.1)


@pytest.mark.slow
@examples(5)
@given(
    q_step=st.lists(st.integers(0, 4), min_size=1, max_size=9),
    k_step=st.lists(st.integers(0, 4), min_size=1, max_size=9),
    strict=st.booleans(),
    window=st.sampled_from([None, 0, 1]),
    static=st.booleans(),
    implementation=st.sampled_from(IMPLEMENTATIONS[1:]),
)
def test_drawn_steps(q_step, k_step, strict, window, static, implementation):
    q_step, k_step = np.asarray(q_step), np.asarray(k_step)
    if not static:
        q_step, k_step = jnp.asarray(np.stack([q_step, q_step[::-1]])), jnp.asarray(k_step)
    check(q_step, k_step, implementation, strict=strict, window=window)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that small inputs are cut as large ones are."""
    monkeypatch.setattr(xla, "SMALLEST", 3)
    monkeypatch.setattr(xla, "LARGEST", 8)
    monkeypatch.setattr(xla, "KEYS", 10)
    monkeypatch.setattr(xla, "WRITTEN_OUT", 5)
    core._run.clear_cache()
    yield
    core._run.clear_cache()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_query_that_sees_nothing(implementation):
    arrays = inputs(0, 1, 3, 2, 1, 1, 16)[:3]

    def run(q, k, v):
        found = []
        for wrap in (np.asarray, jnp.asarray):
            steps = wrap(np.array([0, 1, 5])), wrap(np.array([1, 2]))
            found.append(step_attention(q, k, v, *steps, return_lse=True, implementation=implementation))
        return sum(jnp.sum(out) + jnp.sum(lse[:, 1:]) for out, lse in found), found

    grads, found = jax.jit(jax.grad(run, (0, 1, 2), has_aux=True))(*arrays)
    for out, lse in found:
        np.testing.assert_array_equal(out[0, 0], 0)
        assert lse[0, 0, 0] == -np.inf and np.isfinite(lse[0, 1:]).all()
    assert all(np.isfinite(g).all() for g in grads)
    np.testing.assert_array_equal(grads[0][0, 0], 0)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_merge_is_the_union(rate):
    """ACDiT's visibility: earlier clean blocks, and the own noisy one; with a query that sees neither."""
    n = 12
    step = np.arange(n) // 3
    q, clean, value, d_out, d_lse = inputs(3, 2, n, n, 2, 2, 8)
    noisy, noisy_value, *_ = inputs(4, 2, n, n, 2, 2, 8)
    clean_step = step + 1  # the first block of clean keys is hidden from the first queries
    words = [draw_words(jax.random.key(i), (2, 2, n)) if rate else None for i in range(2)]
    grown = (
        [kept(w, m, rate) / (1 - rate) for w, m in zip(words, (n, n - 3))] if rate else [np.ones((1, 1, 1))]
    )

    attend = functools.partial(step_attention, return_lse=True, dropout=rate)
    grown = np.concatenate(grown, axis=-1)

    def union(q, clean, noisy):
        parts = (
            attend(q, clean, value, step, clean_step, words=words[0]),
            attend(q, noisy[:, 3:], noisy_value[:, 3:], step, step[3:], window=0, words=words[1]),
        )
        return merge(*zip(*parts))

    seen = np.concatenate([see(step, clean_step), see(step, step[3:], window=0)], axis=1)
    keys = jnp.concatenate([clean, noisy[:, 3:]], axis=1)
    values = jnp.concatenate([value, noisy_value[:, 3:]], axis=1)
    d_lse = d_lse.at[:, :3].set(0.0)

    @jax.jit
    def run(*arrays):
        found, pull = jax.vjp(union, *arrays)
        return found, pull((d_out, d_lse))

    (out, lse), found = run(q, clean, noisy)
    expected = dense(q, keys, values, seen, grown=grown)
    np.testing.assert_allclose(out, expected[0], atol=1e-5)
    np.testing.assert_allclose(lse, expected[1], atol=1e-5)
    assert not seen[0].any() and (lse[:, 0] == -np.inf).all()
    dq, dk, _ = dense(q, keys, values, seen, None, d_out, d_lse, grown)
    np.testing.assert_allclose(found[0], dq, atol=1e-5)
    np.testing.assert_allclose(jnp.concatenate([found[1], found[2][:, 3:]], axis=1), dk, atol=1e-5)


@pytest.mark.parametrize("implementation", ["xla", "tpu_interpret", "gpu_interpret"])
def test_transformations(implementation):
    """A scan over layers with remat, under vmap and jit, gives what plain calls give, forward and gradient."""
    steps = np.arange(10) // 2
    q, k, v, d_out, _ = inputs(5, 3, 10, 10, 2, 1, 16)

    def plain(q, k, v):
        attend = functools.partial(step_attention, q_step=steps, k_step=steps, implementation="reference")
        return jnp.sum(d_out * attend(attend(q, k, v), k, v))

    def layers(q, k, v):
        call = functools.partial(step_attention, q_step=steps, k_step=steps, implementation=implementation)
        body = jax.checkpoint(lambda x, _: (call(x[None], k[None], v[None])[0], None))
        return jax.lax.scan(body, q, None, length=2)[0]

    def mapped(q, k, v):
        return jnp.sum(d_out * jax.vmap(layers)(q, k, v))

    found, expected = (jax.jit(jax.value_and_grad(f, (0, 1, 2)))(q, k, v) for f in (mapped, plain))
    chex.assert_trees_all_close(found, expected, atol=2e-5)


def test_visits_are_the_visible_blocks():
    """Blocks visited, counted one by one, for static and traced steps, by queries and by keys."""
    rng = np.random.default_rng(0)
    for window in (None, 1):
        step = np.sort(rng.integers(0, 6, 48))
        s = spans(step, step, strict=False, window=window, sorted_already=True)
        seen = see(step, step, window=window).reshape(6, 8, 12, 4).swapaxes(1, 2)
        for of_keys in (False, True):
            some, full = seen.any((2, 3)), seen.all((2, 3))
            some, full = (some.T, full.T) if of_keys else (some, full)
            table = edges(s.low, s.high, 8, 4, 12, of_keys=of_keys)
            walk = visits(table)
            wanted = np.argwhere(some)
            np.testing.assert_array_equal(walk[:2].T, wanted)
            np.testing.assert_array_equal((walk[2] & 8) == 0, full[tuple(wanted.T)])
            ends = np.diff(wanted[:, 0], prepend=-1) > 0
            np.testing.assert_array_equal((walk[2] & 1) != 0, ends)
            np.testing.assert_array_equal((walk[2] & 2) != 0, np.append(ends[1:], True))
            traced = jax.jit(functools.partial(visits, most=72))(jnp.asarray(table))
            np.testing.assert_array_equal(traced[:, : walk.shape[1]], walk)
            assert not (np.asarray(traced[2, walk.shape[1] :])).any()


def test_xla_blocks_are_nearly_the_least():
    """VAR's 680 slots: key blocks visited within 5 % of the visible pairs."""
    steps = shapes.levels(shapes.VAR_256)
    s = spans(steps, steps, strict=False, window=None, sorted_already=True)
    found = xla.blocks(s.low, s.high)
    visited = sum((b.rows.stop - b.rows.start) * (b.keys.stop - b.keys.start) for b in found)
    assert found[0].rows.start == 0 and found[-1].rows.stop == 680
    assert all(a.rows.stop == b.rows.start for a, b in zip(found, found[1:]))
    assert max(b.rows.stop - b.rows.start for b in found) <= xla.LARGEST
    assert visited <= 1.05 * see(steps, steps).sum()


def test_no_matrix_of_all_pairs_is_kept():
    """Temporaries of a gradient at N = 2048 stay under a quarter of the logits of all pairs, by either route."""
    n, heads = 2048, 4
    shape = jax.ShapeDtypeStruct((1, n, heads, 16), jnp.float32)
    for traced in (False, True):

        def run(q, k, v, traced=traced):
            steps = jnp.arange(n) if traced else np.arange(n)
            return jnp.sum(step_attention(q, k, v, steps, steps))

        memory = jax.jit(jax.grad(run, (0, 1, 2))).lower(shape, shape, shape).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 4 * heads * n * n / 4
