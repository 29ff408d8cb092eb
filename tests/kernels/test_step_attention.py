"""Step-masked attention against a dense float64 formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vargen.kernels.step_attention import blockwise, step_attention


def dense(q, k, v, q_step, k_step, strict=False, window=None, scale=None):
    """The definition, in float64 NumPy."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    batch, n, heads, dim = q.shape
    out = np.zeros((batch, n, heads, v.shape[-1]))
    q_step, k_step = (np.broadcast_to(s, (batch, s.shape[-1])) for s in (q_step, k_step))
    for b in range(batch):
        for h in range(heads):
            g = h * k.shape[2] // heads
            logits = q[b, :, h] @ k[b, :, g].T * (dim**-0.5 if scale is None else scale)
            qs, ks = q_step[b][:, None], k_step[b][None]
            seen = (ks < qs) if strict else (ks <= qs)
            if window is not None:
                seen &= ks >= qs - window
            for i in range(n):
                if seen[i].any():
                    w = np.exp(logits[i][seen[i]] - logits[i][seen[i]].max())
                    out[b, i, h] = w / w.sum() @ v[b, :, g][seen[i]]
    return out


def inputs(rng, batch, n, m, heads, groups, dim):
    shapes = ((batch, n, heads, dim), (batch, m, groups, dim), (batch, m, groups, dim))
    return [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    steps=st.lists(st.integers(0, 4), min_size=1, max_size=9),
    groups=st.sampled_from([1, 2]),
    strict=st.booleans(),
    window=st.sampled_from([None, 0, 1]),
    static=st.booleans(),
)
def test_drawn_steps(seed, steps, groups, strict, window, static):
    rng = np.random.default_rng(seed)
    q, k, v = inputs(rng, 2, len(steps), len(steps), 2, groups, 4)
    steps = np.asarray(steps)
    given_steps = steps if static else jnp.asarray(np.stack([steps, steps[::-1]]))
    found = step_attention(q, k, v, given_steps, given_steps, strict=strict, window=window)
    np.testing.assert_allclose(
        found, dense(q, k, v, np.asarray(given_steps), np.asarray(given_steps), strict, window), atol=1e-5
    )


@pytest.mark.parametrize("case", ["levels", "causal", "bidirectional", "traced", "cross"])
def test_blocks_forward_and_gradient(case, monkeypatch):
    # Small blocks, so that small inputs are cut as large ones are.
    monkeypatch.setattr(blockwise, "SMALLEST", 3)
    monkeypatch.setattr(blockwise, "LARGEST", 5)
    rng = np.random.default_rng(0)
    steps = {
        "levels": np.repeat(np.arange(4), (1, 4, 9, 7)),
        "bidirectional": np.zeros(13, int),
    }.get(case, np.arange(13))
    q_step, k_step = steps, steps
    if case == "cross":
        q_step = steps[5:]
    if case == "traced":
        q_step = k_step = jnp.asarray(rng.permuted(np.tile(steps, (2, 1)), axis=1))
    q, k, v = inputs(rng, 2, q_step.shape[-1], k_step.shape[-1], 2, 1, 4)
    weight = jnp.asarray(rng.normal(size=q.shape), jnp.float32)
    expected = dense(q, k, v, np.asarray(q_step), np.asarray(k_step))
    np.testing.assert_allclose(step_attention(q, k, v, q_step, k_step), expected, atol=1e-5)

    def by_definition(q, k, v):
        mask = jnp.asarray(k_step)[..., None, :] <= jnp.asarray(q_step)[..., :, None]
        mask = mask if mask.ndim == 2 else mask[:, None]
        k, v = jnp.repeat(k, 2, axis=2), jnp.repeat(v, 2, axis=2)
        logits = jnp.einsum("bnhd,bmhd->bhnm", q, k) / 2.0
        weights = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf))
        return jnp.sum(weight * jnp.einsum("bhnm,bmhd->bnhd", weights, v))

    found = jax.jit(jax.grad(lambda *a: jnp.sum(weight * step_attention(*a, q_step, k_step)), (0, 1, 2)))(
        q, k, v
    )
    for a, b in zip(found, jax.grad(by_definition, (0, 1, 2))(q, k, v), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_query_that_sees_nothing():
    q, k, v = inputs(np.random.default_rng(0), 1, 3, 2, 1, 1, 4)
    for wrap in (np.asarray, jnp.asarray):
        q_step, k_step = wrap(np.array([0, 1, 5])), wrap(np.array([1, 2]))
        grad = jax.grad(lambda q, s=q_step, t=k_step: jnp.sum(step_attention(q, k, v, s, t)))(q)
        assert np.isfinite(grad).all()
        np.testing.assert_array_equal(step_attention(q, k, v, q_step, k_step)[0, 0], 0)


def test_blocks_touch_no_more_than_the_visible_keys():
    levels = np.repeat(np.arange(10), np.array([1, 2, 3, 4, 5, 6, 8, 10, 13, 16]) ** 2)
    bounds = blockwise.query_bounds(levels)
    visited = sum(
        (end - start) * np.flatnonzero(levels <= levels[end - 1]).size
        for start, end in zip(bounds[:-1], bounds[1:], strict=True)
    )
    least = sum(np.sum(levels <= s) for s in levels)
    assert bounds[0] == 0 and bounds[-1] == 680 and max(np.diff(bounds)) <= blockwise.LARGEST
    assert visited <= 1.05 * least


def test_no_mask_of_all_pairs_is_kept():
    """Temporaries at N = 2048 stay under a third of what the logits of all pairs would take."""
    n, heads = 2048, 4
    shape = jax.ShapeDtypeStruct((1, n, heads, 16), jnp.float32)
    run = jax.jit(lambda q, k, v: step_attention(q, k, v, np.arange(n), np.arange(n)))
    memory = run.lower(shape, shape, shape).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * heads * n * n / 3


def test_wrong_shapes():
    q, k, v = inputs(np.random.default_rng(0), 1, 3, 2, 3, 2, 4)
    with pytest.raises(ValueError, match="does not fit"):
        step_attention(q, k, v, np.arange(3), np.arange(2))
    with pytest.raises(ValueError, match="steps"):
        step_attention(q, k[:, :, :1], v[:, :, :1], np.arange(3), np.arange(3))
