"""Slots of several codes through whole generators: likelihoods, who is told what, and one code as the usual case."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import noisy
from systems import dnd, labels_for, llamagen, make, rqtransformer

from vargen import models
from vargen.config import part
from vargen.errors import UserError
from vargen.model import Model
from vargen.orders import Order
from vargen.samplers import Sampling, decode


@pytest.mark.parametrize("name", ["rqtransformer", pytest.param("dnd", marks=pytest.mark.slow)])
def test_scores_of_samples_are_their_likelihood(name):
    """What the engine said of each slot when it drew it, with caches, is what one whole pass says of the result."""
    _, generator, params, tokenizer_params = make(name)
    quantizer, labels = tokenizer_params["quantizer"], labels_for(generator, 2)

    @jax.jit
    def run(params, quantizer):
        draw = functools.partial(decode, generator, scored=True)
        found = draw(params, quantizer, labels, jax.random.key(1), Sampling.make())
        return found.score, generator.log_likelihood(params, quantizer, found.content, labels)

    score, nats = run(params, quantizer)
    assert score.shape == (2, 16) and np.ptp(nats) > 1e-3
    np.testing.assert_allclose(score.sum(axis=1), nats, rtol=1e-4)


def test_a_stage_is_told_the_codes_before_it():
    """Code j of slot t reaches slot t after stage j, later slots everywhere, and nothing else."""
    c = dnd()
    c.tokenizer.depth, c.model.layers = 3, (1, 1, 1)
    generator = models.build_generator(c, models.build_tokenizer(c))
    rng = np.random.default_rng(0)
    params = jax.jit(generator.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype(x.dtype), params)
    order = Order(np.arange(16), np.arange(16))

    @jax.jit
    def hidden(content):
        return generator.hidden(params, None, content, jnp.array([1]), order)[0][0]

    content = jnp.asarray(rng.integers(0, 16, (1, 16, 3)))
    before = hidden(content)
    assert before.shape == (16, 3, 16)
    for code in range(3):
        changed = np.any(np.abs(hidden(content.at[0, 7, code].add(1) % 16) - before) > 1e-6, axis=-1)
        expected = np.zeros((16, 3), bool)
        expected[8:], expected[7, code + 1 :] = True, True
        np.testing.assert_array_equal(changed, expected)


def test_one_code_in_one_stage_is_the_usual_generator():
    """With a single code the staged parts compute what LlamaGen's do, of the same weights."""
    c, of = dnd(), llamagen()
    c.tokenizer.depth, c.model.layers = 1, (2,)
    staged, usual = (models.build_generator(x, models.build_tokenizer(x)) for x in (c, of))
    rng = np.random.default_rng(0)
    params = noisy(usual.init)
    head = {"norms_0": params["blocks_norm"]["norm"], "codes_0": params["head"]}
    same = {k: params[k] for k in ("condition", "feed")}
    moved = same | {"blocks_0": params["blocks"], "head": head}
    chex.assert_trees_all_equal_shapes(moved, jax.eval_shape(staged.init, jax.random.key(0)))
    content, labels = jnp.asarray(rng.integers(0, 16, (2, 16))), jnp.array([1, 2])

    @jax.jit
    def run(params, moved):
        expected = usual.log_likelihood(params, None, content, labels)
        return expected, staged.log_likelihood(moved, None, content[..., None], labels)

    expected, found = run(params, moved)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "base, change, message",
    [
        (dnd, dict(head=part("depth")), "feed staged: .* expected the head staged, found depth"),
        (dnd, dict(feed=part("shift")), "head staged: .* expected the feed staged, found shift"),
        (dnd, dict(feed=part("staged", vectors=True)), "feed staged: expected vectors=False, found True"),
        (
            dnd,
            dict(tokenizer=llamagen().tokenizer),
            "feed staged: expected a tokenizer of several codes a slot",
        ),
        (
            rqtransformer,
            dict(head=part("categorical")),
            "head categorical: expected a tokenizer of one code a slot, found .*; the head depth takes",
        ),
    ],
)
def test_misfits(base, change, message):
    c = base()
    for axis, value in change.items():
        c[axis] = value
    with pytest.raises(UserError, match=message):
        models.build_generator(c, models.build_tokenizer(c))


def test_a_model_of_classes_alone():
    """Without a vector for no class there is a row less, no label is dropped, and guidance is refused."""
    c = rqtransformer()
    c.conditioning = part("label", dropout=None)
    condition = models.build_generator(c, models.build_tokenizer(c)).condition
    shapes = jax.eval_shape(condition.init, jax.random.key(0), jnp.zeros(1, int))["params"]
    assert [x.shape for x in jax.tree.leaves(shapes)] == [(10, 16)]
    labels = jnp.arange(10)
    np.testing.assert_array_equal(condition.drop(labels, jax.random.key(0)), labels)
    with pytest.raises(
        ValueError, match="sampling.guidance: expected none, as the model has learnt no pictures"
    ):
        condition.without(labels)
    with pytest.raises(
        UserError, match="sampling.guidance: expected none, as the model has learnt no pictures"
    ):
        Model(c, {}, {}).sampling(guidance=2.0)
    with pytest.raises(UserError, match="class: expected 0 to 9, found none"):
        condition.parse([3, None])


@pytest.mark.parametrize("name", ["rqtransformer", pytest.param("dnd", marks=pytest.mark.slow)])
def test_filters_for_each_code(name):
    """Of the first codes all, of the second the likeliest alone."""
    config, generator, params, tokenizer_params = make(name)
    model = Model(config, tokenizer_params, params)
    seen = [np.asarray(model.generate([3] * 4, seed, guidance=1, top_k=(0, 1))[0][:, 0]) for seed in (0, 1)]
    first, second = np.concatenate(seen).T
    assert len(np.unique(first)) > 1
    for code in np.unique(first):  # the second of the first slot follows from the first
        assert len(np.unique(second[first == code])) == 1
    with pytest.raises(
        UserError, match="sampling.top_p: expected one number, or one for each of 2 codes, found 3"
    ):
        model.sampling(top_p=(0.5, 0.9, 1.0))
    assert model.sampling(top_p=[1.0, 0.9]).nucleus and not model.sampling(top_p=(1.0, 1.0)).nucleus
