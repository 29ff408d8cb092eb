"""Draws of the categorical head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernels.test_filters import by_definition

from vargen.draws import Keyed
from vargen.heads.categorical import Categorical, draw
from vargen.samplers import Sampling


def test_draws_follow_the_distribution():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    logits, draws = (
        jnp.broadcast_to(logits, (1, 4000, 4)),
        Keyed(jax.random.split(jax.random.key(0), (1, 4000))),
    )
    codes = draw(logits, draws, Sampling.make(temperature=0.5))
    expected = np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365
    np.testing.assert_allclose(np.bincount(codes[0], minlength=4) / 4000, expected, atol=0.025)
    assert (draw(logits, draws, Sampling.make(temperature=0.0)) == 0).all()
    assert (draw(logits, draws, Sampling.make(top_p=0.79)) <= 1).all()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_probability_as_drawn(temperature):
    """Of a sample in the law that it was drawn from: under guidance, temperature and filters; at 0 as at 1."""
    head = Categorical(vocab=20, init_std=1.0)
    hidden = jax.random.normal(jax.random.key(0), (4, 50, 8))
    variables = head.init(jax.random.key(1), hidden)
    draws = Keyed(jax.random.split(jax.random.key(2), (2, 50)))
    settings = Sampling.make(temperature=temperature, top_k=7, top_p=0.8)
    found = head.apply(variables, hidden, draws, None, settings, 1.5, method="sample")
    one, none = np.split(np.asarray(head.apply(variables, hidden), np.float64), 2)
    logits = (none + 1.5 * (one - none)).reshape(100, 20) / (temperature or 1.0)
    law = np.stack([by_definition(row, 7, 0.8) for row in logits])
    expected = law[np.arange(100), np.asarray(found.content).ravel()]
    assert expected.min() > 0
    np.testing.assert_allclose(np.exp(found.drawn).ravel(), expected, rtol=1e-4)


def test_loss_and_log_prob():
    head = Categorical(vocab=5, init_std=1.0)
    hidden = jax.random.normal(jax.random.key(0), (2, 3, 4))
    variables = head.init(jax.random.key(1), hidden)
    target, weight = jnp.array([[0, 1, 2], [4, 3, 2]]), jnp.array([[1.0, 0, 1], [0, 0, 1]])
    logits = np.asarray(head.apply(variables, hidden), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_p, np.asarray(target)[..., None], axis=-1)[..., 0]
    loss, metrics = head.apply(variables, hidden, target, None, weight, method="loss")
    np.testing.assert_allclose(loss, -(picked * weight).sum() / 3, rtol=1e-5)
    hit = (logits.argmax(-1) == target) * weight
    np.testing.assert_allclose(metrics["accuracy"], hit.sum() / 3, rtol=1e-6)
    np.testing.assert_allclose(head.apply(variables, hidden, target, method="log_prob"), picked, rtol=1e-4)
    smooth = Categorical(vocab=5, label_smoothing=0.1)
    loss, _ = smooth.apply({"params": variables["params"]}, hidden, target, method="loss")
    np.testing.assert_allclose(loss, -(0.9 * picked + 0.1 * log_p.mean(-1)).mean(), rtol=1e-5)
