"""The attention of a step of decoding on a GPU, against the definition in float64."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernels.test_step_attention import dense, inputs

from vargen.kernels import Norming, cached_attention, step_attention
from vargen.kernels.step_attention import few, reference

CASES = {
    # batch, queries, keys, heads, groups, channels
    "one_query": (2, 1, 100, 3, 3, 16),
    "groups": (1, 2, 70, 6, 2, 24),
    "many_rows": (1, 5, 40, 8, 2, 16),
    "several_stretches": (1, 3, 1030, 2, 1, 16),
}


@pytest.mark.parametrize("scale", [0.3, -0.3])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition(name, scale):
    """Spans that begin and end anywhere, also in no stretch or an empty one: 1e-5."""
    batch, n, m, heads, groups, dim = CASES[name]
    q, k, v, *_ = inputs(0, batch, n, m, heads, groups, dim)
    rng = np.random.default_rng(1)
    low = rng.integers(0, m // 2, (batch, n))
    high = low + rng.integers(1, m // 2, (batch, n))
    high[0, 0] = low[0, 0]  # sees nothing
    high[-1, -1] = m
    out, lse = jax.jit(
        lambda q, k, v, low, high: few.attend(q, k, v, low, high, scale=scale, interpret=True)
    )(q, k, v, low, high)
    index = np.arange(m)
    seen = (low[..., None] <= index) & (index < high[..., None])
    expected = dense(q, k, v, seen, scale)
    np.testing.assert_allclose(out, expected[0], atol=1e-5)
    np.testing.assert_allclose(lse.swapaxes(1, 2), expected[1], atol=1e-5)
    assert np.isneginf(lse[0, :, 0]).all() and not np.asarray(out[0, 0]).any()


@pytest.mark.parametrize("name", CASES)
def test_new_rows_go_into_the_caches(name):
    """Rows put there by the kernel, and attention that sees them: as the caches with them put there before, 1e-5."""
    batch, n, m, heads, groups, dim = CASES[name]
    q, k, v, *_ = inputs(3, batch, n, m, heads, groups, dim)
    _, new_k, new_v, *_ = inputs(4, batch, n, n, heads, groups, dim)
    start = m // 2
    low, high = np.zeros((batch, n), int), np.broadcast_to(start + 1 + np.arange(n), (batch, n))
    run = jax.jit(functools.partial(few.attend_cached, scale=0.3, interpret=True))
    found = run(q, new_k, new_v, k, v, start, low, high)
    expected = reference.attend_cached(q, new_k, new_v, k, v, start, low, high, scale=0.3)
    chex.assert_trees_all_close(found, expected, atol=1e-5)
    assert not np.array_equal(found[2], k)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("name", ["groups", "several_stretches"])
def test_norms_of_queries_and_new_keys(name, each, kind):
    """Made by the kernel on its way, with scales of all heads or of each: 1e-5."""
    batch, n, m, heads, groups, dim = CASES[name]
    q, k, v, *_ = inputs(3, batch, n, m, heads, groups, dim)
    _, new_k, new_v, *_ = inputs(4, batch, n, n, heads, groups, dim)
    rng, norms = np.random.default_rng(5), []
    for count in (heads, groups):
        shape = (count, dim) if each else (dim,)
        own = {x: jnp.asarray(rng.normal(size=shape), jnp.float32) for x in ("scale", "bias")}
        norms.append(Norming(own, None, None, kind, 1e-6))
    low, high = np.zeros((batch, n), int), np.full((batch, n), m // 2 + n)
    args = (q, new_k, new_v, k, v, m // 2, low, high, tuple(norms))
    run = jax.jit(functools.partial(few.attend_cached, scale=0.3, interpret=True))
    chex.assert_trees_all_close(run(*args), reference.attend_cached(*args, scale=0.3), atol=1e-5)


def test_bfloat16():
    """Weights are rounded to 8 bits before their product: 1e-2."""
    q, k, v, *_ = inputs(2, 1, 2, 90, 4, 2, 32, jnp.bfloat16)
    low, high = np.zeros(2, int), np.array([50, 90])
    out, _ = few.attend(q, k, v, low, high, scale=0.2, interpret=True)
    expected, _ = reference.attend(*(x.astype(jnp.float32) for x in (q, k, v)), low, high, scale=0.2)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=1e-2)


def test_a_step_of_decoding_on_a_gpu_is_one_kernel(lower_for_cuda):
    """Chosen when the program is lowered."""

    q, k, v = (jax.ShapeDtypeStruct((1, s, 2, 16), jnp.bfloat16) for s in (1, 64, 64))
    at, times = jax.ShapeDtypeStruct((), jnp.int32), np.arange(64)

    def plain(q, k, v, at):
        return step_attention(q, k, v, at[None], times, steps_are_sorted=True)

    def cached(q, k, v, at):
        return cached_attention(q, q, q, k, v, at, at[None], times)

    for call in (plain, cached):
        assert lower_for_cuda(call, q, k, v, at).count("triton") == 1
