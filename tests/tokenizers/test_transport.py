"""Optimal transport between latents and codes, in float64: Sinkhorn's algorithm on kernels, and a linear program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny
from scipy.optimize import linprog

from vargen.tokenizers.transport import potential, transport


def problem(seed=0, rows=7, columns=5):
    rng = np.random.default_rng(seed)
    weights = rng.random(columns) + 0.2
    return rng.random((rows, columns)), weights / weights.sum()


def plan(cost, weights, epsilon, iterations=3000):
    """The transport [M, K] in float64, by scalings of exp(-cost / epsilon)."""
    kernel, u, rows = np.exp(-cost / epsilon), np.ones(len(cost)), np.full(len(cost), 1 / len(cost))
    for _ in range(iterations):
        v = weights / (kernel.T @ u)
        u = rows / (kernel @ v)
    return u[:, None] * kernel * v


def value(cost, weights, epsilon):
    """Cost and epsilon times the divergence from independence."""
    found = plan(cost, weights, epsilon)
    return np.sum(found * cost) + epsilon * np.sum(found * np.log(found / (weights / len(cost))))


@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_sinkhorn_in_float64(epsilon):
    cost, weights = problem()
    run = jax.jit(lambda c, w: transport(c, w, epsilon, 400))
    found, (by_cost, by_weight) = run(cost, np.log(weights)), jax.grad(run, (0, 1))(cost, np.log(weights))
    np.testing.assert_allclose(found, value(cost, weights, epsilon), rtol=2e-5)
    np.testing.assert_allclose(by_cost, plan(cost, weights, epsilon), atol=2e-5)
    # The weights' gradient by differences, along changes that leave them a law.
    for k in range(4):
        step = np.zeros(5)
        step[[k, k + 1]] = 1e-5, -1e-5
        slope = (value(cost, weights + step, epsilon) - value(cost, weights - step, epsilon)) / 2e-5
        along = by_weight[k] / weights[k] - by_weight[k + 1] / weights[k + 1]
        np.testing.assert_allclose(along, slope, rtol=2e-3, atol=1e-4)


def test_little_entropy_is_the_linear_program():
    """Between its cost and that with epsilon log M more; before the end of the algorithm below what it comes to."""
    cost, weights = problem(1, 8, 6)
    margins = np.concatenate([np.kron(np.eye(8), np.ones(6)), np.kron(np.ones(8), np.eye(6))])
    exact = linprog(cost.reshape(-1), A_eq=margins, b_eq=np.concatenate([np.full(8, 1 / 8), weights])).fun
    found = [float(transport(cost, np.log(weights), 0.002, n)) for n in (1, 5, 2000)]
    assert found[0] < found[2] and found[1] < found[2] + 1e-6
    assert exact - 1e-5 < found[2] < exact + 0.002 * np.log(8), (exact, found)


def test_potentials_stay_finite():
    """Costs a thousand times epsilon, and a code without weight."""
    cost = jnp.asarray([[0.0, 1000.0, 5.0], [1000.0, 0.0, 5.0]])
    weights = jnp.log(jnp.asarray([0.5, 0.5, 1e-30]))
    assert np.isfinite(potential(cost, weights, 1.0, 50)).all()
    np.testing.assert_allclose(
        transport(cost, weights, 1.0, 50), np.log(2), rtol=1e-4
    )  # of mutual information


@pytest.mark.parametrize("per_slot", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_losses(per_slot):
    """Both terms in float64; codes have no gradient but that of transport, weights of none but these two."""
    t = tiny(
        "vq_wae", per_slot=per_slot, iterations=500, epsilon=0.3, transport_weight=0.7, uniform_weight=0.2
    )
    params = jax.jit(t.init)(jax.random.key(0))
    shape = params["quantizer"]["weights"].shape
    assert shape == (16 if per_slot else 1, t.vocab)
    logits = np.random.default_rng(0).normal(size=shape)
    params["quantizer"]["weights"] = jnp.asarray(logits, jnp.float32)
    images = jax.random.uniform(jax.random.key(1), (6, 16, 16, 1), minval=-1)

    @jax.jit
    def run(params):
        loss = lambda p: t.bottleneck(p, t.init_stats(), images, None)[1::2]  # noqa: E731
        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return t.codec.encode(params, images), value, metrics, gradient

    features, loss, metrics, gradient = run(params)
    vectors, codes = np.float64(features).reshape(6, 16, -1), np.float64(params["quantizer"]["codebook"])
    law = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    cost = np.square(vectors[:, :, None] - codes).sum(-1).swapaxes(0, 1)
    cost = cost if per_slot else cost.reshape(1, 96, -1)
    epsilon = 0.3 * cost.mean()
    moved = np.mean([value(c, w, epsilon) for c, w in zip(cost, law, strict=True)])
    uniform = np.mean(np.sum(law * np.log(law * t.vocab), axis=-1))
    np.testing.assert_allclose(metrics["transport"], moved, rtol=1e-4)
    np.testing.assert_allclose(metrics["uniform"], uniform, rtol=1e-4)
    np.testing.assert_allclose(loss, 0.7 * moved + 0.2 * uniform, rtol=1e-4)
    # d cost / d code = 2 (code - latent), weighted by the transport.
    plans = np.stack([plan(c, w, epsilon) for c, w in zip(cost, law, strict=True)])
    own = vectors.swapaxes(0, 1).reshape(len(cost), -1, t.channels)
    pull = 2 * (plans.sum(1)[..., None] * codes - np.einsum("nbk,nbc->nkc", plans, own)).mean(0)
    np.testing.assert_allclose(gradient["quantizer"]["codebook"], 0.7 * pull, atol=1e-4)
    assert np.abs(gradient["quantizer"]["weights"]).min(-1).max() > 0
