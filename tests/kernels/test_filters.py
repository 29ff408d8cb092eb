"""Top-k and top-p."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen.kernels import filter_logits


def by_definition(logits, top_k, top_p):
    """Probabilities after top-k, then top-p (keep the likeliest until their mass reaches top_p), float64."""
    logits = logits.astype(np.float64)
    if top_k:
        logits = np.where(logits < np.sort(logits)[-top_k], -np.inf, logits)
    p = np.exp(logits - logits.max())
    p /= p.sum()
    kept, mass = np.zeros(len(p), bool), 0.0
    for i in np.argsort(-p):
        if mass < top_p or not kept.any():
            kept[i] = True
        mass += p[i]
    p = p * kept
    return p / p.sum()


@pytest.mark.parametrize("top_k", [0, 1, 5, 50])
@pytest.mark.parametrize("top_p", [0.05, 0.6, 0.95, 1.0])
def test_filters(top_k, top_p):
    logits = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32) * 2
    found = jax.nn.softmax(filter_logits(jnp.asarray(logits), top_k, top_p))
    expected = np.stack([by_definition(row, min(top_k, 20), top_p) for row in logits])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("top_k", [1, 12])
def test_the_last_code_stays(top_k):
    """Also where logits are computed on the way, which XLA may round in two ways."""
    with_it, without = np.random.default_rng(0).normal(size=(2, 64, 200)).astype(np.float32)

    @jax.jit
    def kept(with_it, without, scale, temperature):
        logits = (without + scale * (with_it - without)) / temperature
        return logits, [jnp.isfinite(filter_logits(logits, top_k, p)) for p in (None, 1e-6)]

    logits, (by_rank, by_mass) = kept(with_it, without, 2.5, 0.7)
    assert (by_rank.sum(axis=-1) == top_k).all()
    np.testing.assert_array_equal(by_mass, logits == logits.max(axis=-1, keepdims=True))
