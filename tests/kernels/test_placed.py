"""New keys and values put into their caches by a GPU's kernel, against the definition."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernels.test_step_attention import inputs

from vargen.kernels import Norming, cached_attention, placed
from vargen.kernels.step_attention import placing, reference

CASES = {
    # batch, new rows, rows of the cache, heads, groups, channels
    "one_block": (2, 20, 50, 3, 3, 16),
    "groups": (2, 70, 130, 6, 2, 24),
}
KINDS = ("layer", "rms", "unit")


def arguments(name, kind):
    """Those of the call: rows that begin within the cache, and norms, of "unit" with a factor of each head."""
    batch, n, m, heads, groups, dim = CASES[name]
    q, k, v, *_ = inputs(3, batch, n, m, heads, groups, dim)
    _, new_k, new_v, *_ = inputs(4, batch, n, n, heads, groups, dim)
    rng, norms = np.random.default_rng(5), None
    if kind is not None:
        shapes = {"unit": (heads, 1), "rms": (dim,), "layer": (dim,)}
        own = {x: jnp.asarray(rng.normal(size=shapes[kind]), jnp.float32) for x in ("scale", "bias")}
        norms = Norming(own, None, None, kind, 1e-6), Norming({}, None, None, kind, 1e-6)
    return q, new_k, new_v, k, v, 13, norms


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition(name, kind):
    """Queries and both caches: 1e-5; rows around the new ones to the bit."""
    args = arguments(name, kind)
    found = jax.jit(functools.partial(placing.placed, interpret=True))(*args)
    chex.assert_trees_all_close(found, reference.placed(*args), atol=1e-5)
    n = args[1].shape[1]
    for cache, before in zip(found[1:], args[3:5], strict=True):
        np.testing.assert_array_equal(cache[:, :13], before[:, :13])
        np.testing.assert_array_equal(cache[:, 13 + n :], before[:, 13 + n :])


def test_units():
    """Vectors of the definition have length 1, times the factor of their head: against NumPy in float64, 1e-6."""
    q, new_k, *_, norms = args = arguments("groups", "unit")
    (of_query, _), made = norms, reference.placed(*args)
    wide = np.asarray(q, np.float64)
    expected = wide / np.linalg.norm(wide, axis=-1, keepdims=True)
    expected = expected * np.asarray(of_query.own["scale"]) + np.asarray(of_query.own["bias"])
    np.testing.assert_allclose(made[0], expected, atol=1e-6)
    lengths = np.linalg.norm(np.asarray(made[1][:, 13 : 13 + new_k.shape[1]], np.float64), axis=-1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-6)


def test_attention_behind():
    """Of queries that see spans known when the program runs, and the caches: 1e-5."""
    *args, norms = arguments("groups", "unit")
    batch, n = args[0].shape[:2]
    low = np.broadcast_to(np.arange(n) // 9, (batch, n))
    high = low + 40
    run = jax.jit(functools.partial(placing.attend_cached, scale=0.3, interpret=True))
    expected = reference.attend_cached(*args, low, high, norms, scale=0.3)
    chex.assert_trees_all_close(run(*args, low, high, norms), expected, atol=1e-5)


def test_a_step_of_many_queries_is_two_launches(lower_for_cuda):
    """Where the start is told when the program runs, of a loop: chosen when it is lowered."""
    q, k, v = (jax.ShapeDtypeStruct((2, n, 2, 16), jnp.bfloat16) for n in (40, 128, 128))
    at, times = jax.ShapeDtypeStruct((), jnp.int32), np.arange(128)

    def call(q, k, v, at):
        return cached_attention(q, q, q, k, v, at, at + np.arange(40), times)

    assert lower_for_cuda(call, q, k, v, at).count("triton") == 2


@pytest.mark.parametrize("kind", [None, "unit"])
def test_one_launch_on_a_gpu(kind, lower_for_cuda):
    """Chosen when the program is lowered."""
    assert lower_for_cuda(placed, *arguments("one_block", kind)).count("triton") == 1


def test_steps_share_a_kernel(lower_for_cuda):
    """That differ in their rows alone, and in where these go: the same program and grid."""
    kernels = set()
    for n, start in ((35, 10), (60, 100)):
        rows, cache = jnp.zeros((2, n, 3, 16), jnp.bfloat16), jnp.zeros((2, 200, 3, 16), jnp.bfloat16)
        text = lower_for_cuda(functools.partial(placed, start=start), rows, rows, rows, cache, cache)
        kernels.add(re.search(r"mhlo.backend_config = (\{.*?\}), operand", text)[1])
    assert len(kernels) == 1
