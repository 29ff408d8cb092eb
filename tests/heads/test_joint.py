"""Heads that draft a step over several passes: their solvers against closed forms, their noise and their guidance."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vargen.draws import Recorded
from vargen.heads import Epsilon, Velocity
from vargen.heads.dpm import Solver, linear_signal

SETTINGS = types.SimpleNamespace(temperature=1.0)
VARIANCE = 0.25  # of the contents, which are Gaussian where closed forms are asked for


def refined(head, predict, draws):
    """What a head draws where the network's prediction for a draft is predict(draft, pass)."""
    # The map is the identity, so that hidden vectors are the predictions.
    params = {"out": {"kernel": jnp.eye(head.channels), "bias": jnp.zeros(head.channels)}}
    head = head.bind({"params": params})
    draft = head.start(draws, SETTINGS)
    for at in range(len(head.noise_levels)):
        draft = head.refine(predict(draft.content, at), draft, at, SETTINGS)
    return np.asarray(draft.content, np.float64)


def test_the_solver_by_its_formula_in_float64():
    signal, steps = linear_signal(1000), 7
    solver = Solver.make(signal, steps)
    np.testing.assert_array_equal(solver.times, [999, 856, 714, 571, 428, 285, 143])
    sigma = solver.sigmas.astype(np.float64)
    alpha = 1 / np.sqrt(1 + sigma**2)
    x = np.random.default_rng(0).normal(size=(3, 2))
    ours, content, contents, lambdas = jnp.asarray(x, jnp.float32), jnp.zeros((3, 2)), [], []
    for i in range(steps):
        # The first and last steps are of the first order; between them the multistep midpoint rule.
        contents.append((x - alpha[i] * sigma[i] * np.tanh(x)) / alpha[i])
        lambdas.append(-np.log(sigma[i]))
        if i == steps - 1:
            x = contents[-1]
        else:
            h = -np.log(sigma[i + 1]) - lambdas[-1]
            mixed = contents[-1]
            if i:
                r = (lambdas[-1] - lambdas[-2]) / h
                mixed = (1 + 1 / (2 * r)) * contents[-1] - contents[-2] / (2 * r)
            ratio = alpha[i + 1] * sigma[i + 1] / (alpha[i] * sigma[i])
            x = ratio * x - alpha[i + 1] * (np.exp(-h) - 1) * mixed
        ours, content = solver.step(ours, jnp.tanh(ours), i, content)
        np.testing.assert_allclose(ours, x, rtol=1e-5, atol=1e-5 * np.abs(x).max())
        np.testing.assert_allclose(content, contents[-1], rtol=1e-5, atol=1e-5 * np.abs(contents[-1]).max())
    clipped = solver.step(jnp.full((1, 1), 3.0), jnp.zeros((1, 1)), 0, jnp.zeros((1, 1)), clip=2.0)
    np.testing.assert_array_equal(clipped[1], 2.0)


@pytest.mark.parametrize("steps, error", [(25, 0.03), (200, 5e-4)])
def test_noise_of_gaussian_contents_leads_to_them(steps, error):
    """The probability flow carries a Gaussian into a Gaussian: every number is scaled by the ratio of deviations."""
    head = Epsilon(channels=1, sample_steps=steps)
    signal = linear_signal(1000).astype(np.float64)[head.solver.times]
    spread = signal * VARIANCE + 1 - signal
    noise = jnp.asarray(np.linspace(-2, 2, 5), jnp.float32).reshape(1, 5, 1)
    found = refined(head, lambda x, at: np.sqrt(1 - signal[at]) / spread[at] * x, Recorded(normals=noise))
    np.testing.assert_allclose(found, np.sqrt(VARIANCE / spread[0]) * noise, rtol=error)
    np.testing.assert_array_equal(head.noise_levels, head.solver.times)


def velocity(t):
    """Of Gaussian contents, over the draft: E[noise - content | draft]."""
    return (t - (1 - t) * VARIANCE) / ((1 - t) ** 2 * VARIANCE + t**2)


def test_euler_leads_to_gaussian_contents():
    head = Velocity(channels=1, sample_steps=400, solver="euler")
    noise = jnp.asarray(np.linspace(-2, 2, 5), jnp.float32).reshape(1, 5, 1, 1)
    found = refined(head, lambda x, at: velocity(head.times[at]) * x, Recorded(normals=noise))
    np.testing.assert_allclose(found, np.sqrt(VARIANCE) * noise[:, :, 0], rtol=0.01)
    np.testing.assert_array_equal(
        Velocity(1, sample_steps=4, solver="euler").noise_levels, [1000, 750, 500, 250]
    )


def test_the_reverse_process_leads_to_gaussian_contents():
    """In distribution: 20 000 numbers have the contents' deviation, less what the last step averages away."""
    head = Velocity(channels=1, sample_steps=200)
    noise = jax.random.normal(jax.random.key(0), (1, 20_000, 200, 1))
    found = refined(head, lambda x, at: velocity(head.times[at]) * x, Recorded(normals=noise))
    # From t = 0.04 the expected content is taken: its variance is v times (1 - t)^2 v / ((1 - t)^2 v + t^2).
    share = 0.96**2 * VARIANCE / (0.96**2 * VARIANCE + 0.04**2)
    np.testing.assert_allclose(found.std(), np.sqrt(VARIANCE * share), rtol=0.02)
    assert abs(np.mean(found**4) / np.mean(found**2) ** 2 - 3) < 0.15
    np.testing.assert_array_equal(Velocity(1, sample_steps=4).noise_levels, [1000, 680, 360, 40])


def test_one_pass():
    """A solver of one pass takes the content that is predicted from noise."""
    noise = jnp.asarray([[[[0.5]]]])
    found = refined(
        Velocity(1, sample_steps=1), lambda x, at: jnp.full_like(x, -0.25), Recorded(normals=noise)
    )
    np.testing.assert_allclose(found, 0.5 - (0.5 - 0.25), atol=1e-6)
    found = refined(Epsilon(1, sample_steps=1), lambda x, at: -x, Recorded(normals=noise[:, :, 0]))
    a = linear_signal(1000).astype(np.float64)[999]
    np.testing.assert_allclose(found, (0.5 + np.sqrt(1 - a) * 0.5) / np.sqrt(a), rtol=1e-4)


@pytest.mark.parametrize("head", [Epsilon(3), Velocity(3)], ids=["epsilon", "velocity"])
def test_noise_of_training(head):
    """Each step of an example has a level of its own, which its slots share; content, noise and target add up."""
    steps = np.array([0, 2, 1, 1, 0, 2])
    content = jax.random.normal(jax.random.key(1), (500, 6, 3))
    params = nn.meta.unbox(head.init(jax.random.key(0), jnp.zeros((1, 1, 8))))
    found = head.apply(params, content, steps, method="noised", rngs={"head": jax.random.key(2)})
    level = np.asarray(found.level)
    np.testing.assert_array_equal(level, level[:, [0, 1, 2, 2, 0, 1]])
    assert np.abs(np.corrcoef(level[:, :3].T) - np.eye(3)).max() < 0.15
    assert level.min() >= 0 and level.max() < 1000 and np.all(level == np.floor(level))
    if isinstance(head, Epsilon):  # times are even, noise is the target
        a = linear_signal(1000)[level.astype(int)][..., None]
        np.testing.assert_allclose(
            found.content, np.sqrt(a) * content + np.sqrt(1 - a) * found.target, atol=1e-5
        )
        assert abs(level.mean() - 499.5) < 25
    else:  # content + t (noise - content), t the logistic of a normal number: half lies within [0.337, 0.663]
        np.testing.assert_allclose(found.content, content + level[..., None] / 1000 * found.target, atol=0.01)
        within = np.mean((level > 337) & (level < 663))
        assert abs(within - 0.5) < 0.06
    hidden = jax.random.normal(jax.random.key(3), (500, 6, 8))
    loss, _ = head.apply(params, hidden, found.target, method="loss")
    np.testing.assert_allclose(loss, np.mean(np.square(found.target)), rtol=1e-5)  # the map starts at zero


@pytest.mark.parametrize(
    "head", [Epsilon(3, zero=False), Velocity(3, zero=False)], ids=["epsilon", "velocity"]
)
def test_guidance(head):
    """Of 1 it is none; of 2 it goes as far again from without the condition to with it."""
    params = nn.meta.unbox(head.init(jax.random.key(0), jnp.zeros((1, 1, 8))))
    bound = head.bind(params)
    hidden = jax.random.normal(jax.random.key(3), (4, 6, 8))
    shape = (2, 6, 3) if isinstance(head, Epsilon) else (2, 6, head.sample_steps, 3)
    draft = bound.start(Recorded(normals=jax.random.normal(jax.random.key(4), shape)), SETTINGS)
    plain = [bound.refine(h, draft, 3, SETTINGS).content for h in jnp.split(hidden, 2)]
    for scale in (1.0, 0.0, 2.0):
        found = bound.refine(hidden, draft, 3, SETTINGS, scale).content
        np.testing.assert_allclose(found, plain[1] + scale * (plain[0] - plain[1]), rtol=1e-4, atol=1e-4)
    cold = types.SimpleNamespace(temperature=0.0)
    draft = bound.start(Recorded(normals=jax.random.normal(jax.random.key(4), shape)), cold)
    assert not np.any(draft.content)
