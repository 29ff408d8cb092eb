"""The head over depths: its draws against its likelihood by enumeration, its loss against the definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from parameters import noisy, normal
from systems import rqtransformer

from vargen import models
from vargen.config import part
from vargen.draws import Keyed
from vargen.errors import UserError
from vargen.samplers import Sampling

K, Q = 3, 2


def build(**options):
    """The head of a tiny model, its parameters and a quantiser's, none near zero."""
    c = rqtransformer()
    c.tokenizer.update(dict(vocab=K, depth=Q, channels=2))
    c.head.update(dict(layers=1, **options))
    head = models.build_generator(c, models.build_tokenizer(c)).head
    variables = noisy(lambda key: nn.meta.unbox(head.init(key, jnp.zeros((1, 1, 16)))), scale=0.4)
    return head, variables, {"codebook": normal(1, 1, K, 2)}


ALL = np.array(list(itertools.product(range(K), repeat=Q)), np.int32)  # every content of a slot


@pytest.mark.parametrize("options", [dict(), dict(vectors=False, shared=False)], ids=["vectors", "tables"])
def test_draws_follow_the_likelihood(options):
    head, variables, quantizer = build(**options)
    hidden = normal(3, 1, 1, 16)

    @jax.jit
    def run(variables, scale):
        keys = jax.random.split(jax.random.key(4), (1, 6000))
        every = jnp.broadcast_to(hidden, (1, len(ALL), 16))
        nats = head.apply(variables, every, ALL[None], quantizer, method="log_prob")
        many = jnp.broadcast_to(hidden, (1, keys.shape[1], 16))
        args = (Keyed(keys), None, Sampling.make())
        sample = head.apply(variables, many, *args, None, quantizer, method="sample")
        both = jnp.concatenate([many, many[..., ::-1]])
        guided = head.apply(variables, both, *args, scale, quantizer, method="sample")
        return nats[0], sample, guided

    nats, sample, guided = jax.device_get(run(variables, 1.0))
    np.testing.assert_allclose(np.exp(nats).sum(), 1.0, rtol=1e-5)
    index = np.ravel_multi_index(tuple(np.moveaxis(np.asarray(sample.content[0]), -1, 0)), (K,) * Q)
    found = np.bincount(index, minlength=K**Q) / 6000
    deviation = np.sqrt(np.exp(nats) * (1 - np.exp(nats)) / 6000)
    assert np.all(np.abs(found - np.exp(nats)) < 4.5 * deviation)
    np.testing.assert_allclose(sample.score[0], nats[index], atol=1e-5)
    np.testing.assert_array_equal(guided.content, sample.content)  # a scale of 1 is no guidance
    assert not np.array_equal(run(variables, 3.0)[2].content, sample.content)
    # The later code depends on the earlier one.
    table = np.exp(nats).reshape(K, K)
    assert np.ptp(table / table.sum(axis=1, keepdims=True), axis=0).max() > 0.02


def test_loss():
    """Hard targets are the likelihood per code; soft ones the cross-entropy; weights choose slots."""
    head, variables, quantizer = build()
    hidden = normal(3, 2, 3, 16)
    codes = np.random.default_rng(4).integers(0, K, (2, 3, Q), np.int32)
    soft = np.random.default_rng(5).dirichlet(np.ones(K), (2, 3, Q)).astype(np.float32)
    weight = np.array([[1.0, 0, 1], [0, 0, 1]], np.float32)

    @jax.jit
    def run(variables):
        def loss(**options):
            return head.apply(
                variables, hidden, codes, None, weight, False, quantizer, method="loss", **options
            )

        log_p = jax.nn.log_softmax(head.apply(variables, hidden, codes, quantizer, method="known"))
        nats = head.apply(variables, hidden, codes, quantizer, method="log_prob")
        return loss(), loss(soft=soft), loss(soft=jax.nn.one_hot(codes, K)), log_p, nats

    hard, softened, one_hot, log_p, nats = jax.device_get(run(variables))
    np.testing.assert_allclose(hard[0], -np.sum(nats * weight) / 3 / Q, rtol=1e-5)
    cross = -np.sum(np.float64(soft) * np.float64(log_p), axis=-1)
    np.testing.assert_allclose(softened[0], np.sum(cross.mean(axis=-1) * weight) / 3, rtol=1e-5)
    np.testing.assert_allclose(one_hot[0], hard[0], rtol=1e-6)
    picked = np.take_along_axis(np.asarray(log_p), np.asarray(codes)[..., None], axis=-1)[..., 0]
    each = -np.sum(picked * weight[..., None], axis=(0, 1)) / 3
    np.testing.assert_allclose([hard[1]["nats_1"], hard[1]["nats_2"]], each, rtol=1e-5)


def test_refused():
    c = rqtransformer()
    c.tokenizer = part("vq", encoder=c.tokenizer.encoder, vocab=16, channels=4)
    with pytest.raises(
        UserError, match="head depth: expected a tokenizer of several codes a slot, such as rq"
    ):
        models.build_generator(c, models.build_tokenizer(c))
