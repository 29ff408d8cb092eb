"""A training pass over a part of the last level."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import hart, labels_for, make

from vargen import models
from vargen.config import part
from vargen.errors import UserError
from vargen.orders import Order


@functools.cache
def run():
    """(order) -> hidden vectors [B, M, D] and their weights, with the same content."""
    _, generator, params, tokenizer_params = make("hart")
    content = np.random.default_rng(0).normal(size=(2, 21, 5)).astype(np.float32)
    content[..., 0] = np.random.default_rng(1).integers(0, 16, (2, 21))

    @jax.jit
    def hidden(order):
        quantizer = tokenizer_params["quantizer"]
        found, rows = generator.hidden(params, quantizer, content, labels_for(generator, 2), order)
        return found, rows.weight

    return hidden


def order(last, count):
    """Of the last level the slots int [B, m], of which the first `count` [B] exist."""
    slots = np.concatenate([np.tile(np.arange(5), (2, 1)), 5 + np.asarray(last)], axis=1)
    exists = np.arange(slots.shape[1]) < 5 + np.asarray(count)[:, None]
    steps = np.where(exists, np.minimum(slots, 5) > 0, 3) + (exists & (slots >= 5))
    return Order(jnp.asarray(slots), jnp.asarray(steps), exists=jnp.asarray(exists))


def test_the_whole_level_is_the_usual_pass():
    every = np.tile(np.arange(16), (2, 1))
    found, weight = run()(order(every, [16, 16]))
    levels = np.repeat(np.arange(3), (1, 4, 16))
    expected, _ = run()(Order(np.arange(21), levels))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(weight, 1)


def test_rows_that_exist_see_no_others():
    """Each example its own; levels before the last are as they were, and what doesn't exist plays no role."""
    some = np.array([[1, 4, 9, 2], [0, 3, 2, 15]])
    found, weight = run()(order(some, [3, 2]))
    np.testing.assert_array_equal(weight, np.arange(9) < np.array([[8], [7]]))
    other, _ = run()(order(np.where(np.arange(4) < [[3], [2]], some, 7), [3, 2]))
    np.testing.assert_allclose(found[0, :8], other[0, :8], atol=1e-6)
    np.testing.assert_allclose(found[1, :7], other[1, :7], atol=1e-6)
    more, _ = run()(order(some, [4, 4]))
    np.testing.assert_allclose(found[:, :5], more[:, :5], atol=1e-6)
    assert np.all(np.abs(found[:, 5:7] - more[:, 5:7]).max(-1) > 1e-4)


def test_shares():
    """About 82 % are left out, evenly, for each example its own."""
    _, generator, _, _ = make("hart")
    found = generator.ordering.training(jax.random.key(0), np.zeros((4000, 21)))
    exists, slots = np.asarray(found.exists)[:, 5:], np.asarray(found.slots)[:, 5:]
    assert slots.shape == (4000, 8) and exists.sum(1).min() >= 1
    # 16 - ceil(16 share), at least 1: rounding takes half a slot, and the least gives some of it back.
    share = np.clip(1 - 0.25 * np.abs(np.random.default_rng(0).normal(size=10**6)), 0, 1)
    share = share[share >= 0.5]
    expected = np.mean(np.maximum(16 - np.ceil(16 * share), 1))
    assert abs(exists.sum(1).mean() - expected) < 0.1
    counts = np.bincount(slots[exists] - 5, minlength=16)
    assert counts.min() > 0.8 * counts.mean()
    assert np.all(np.diff(np.where(exists, slots, 99), axis=1) >= 0)


def test_misfits():
    c = hart()
    c.feed = part("branched")
    with pytest.raises(UserError, match="feed branched: needs the order levels"):
        models.build_generator(c, models.build_tokenizer(c))
