"""What holds of every system: orders, losses at the start, precision, what is traced once."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import noisy
from systems import SLOW, SYSTEMS, arpg, labels_for, llamagen, make, randar, some_slow

from vargen import models, orders, parts
from vargen.cli import common
from vargen.conditioning import Captions
from vargen.config import part
from vargen.errors import UserError
from vargen.model import Model
from vargen.orders import Order
from vargen.samplers import Sampling, decode
from vargen.slots import Grid

SLOW_LOSS = [
    *SLOW,
    *"flexvar hmar hmar_masked flowar hart himar bits xar dnd llamagen_memory mamba randar arpg".split(),
]
# One of each kind of pass and of head.
TRACED = "var llamagen mar maskgit acdit rqtransformer".split()


def build(c):
    return models.build_generator(c, models.build_tokenizer(c))


def test_sampling_mistakes():
    config, generator, params, tokenizer_params = make("mar")
    model = Model(config, tokenizer_params, params)
    for options, message in (
        (
            dict(top_p=1.5),
            "sampling.top_p: expected a number above 0 to 1 or a tuple, each .*, found 1.5",
        ),
        (dict(steps=99), "sampling.steps: expected 1 to 16"),
        (dict(top_k=5), "need a categorical head"),
        (
            dict(schedule=((1,), (15,))),
            "sampling.schedule: expected none, as this order has no steps inside levels",
        ),
        (dict(guidance_schedule="quadratic"), "guidance_schedule: expected one of constant, linear"),
    ):
        with pytest.raises(UserError, match=message):
            model.sample([1], 0, **options)
        with pytest.raises(UserError, match=message):  # before the first of them is asked for
            common.sample_batches(model, [1], 0, 1, **options)
    with pytest.raises(UserError, match="class: expected 0 to 9, found 11"):
        model.sample([1, 11], 0)
    with pytest.raises(UserError, match="explicit likelihood"):
        model.log_likelihood(jnp.zeros((1, 16, 4)), [1])


def test_orders():
    grid = Grid(((1, 1), (2, 3)))
    np.testing.assert_array_equal(grid.coords[3], [1, 0, 0, 2])
    assert grid.size == 7 and grid.level_starts == (0, 1)
    np.testing.assert_array_equal(orders.levels(grid).sizes, [1, 6])
    np.testing.assert_array_equal(orders.levels(grid).starts, [0, 1])
    slots = orders.random_slots(Grid(((4, 4),)), jax.random.key(0), 3)
    np.testing.assert_array_equal(np.sort(slots, axis=1), np.tile(np.arange(16), (3, 1)))
    assert not np.array_equal(slots[0], slots[1])
    for n, steps in ((256, 64), (16, 16), (16, 1), (7, 5)):
        sizes = orders.cosine_sizes(n, steps)
        assert len(sizes) == steps and sizes.sum() == n and sizes.min() >= 1


def test_orders_of_blocks():
    def build_order(grid, name, **options):
        return parts.build(orders.ORDERS, part(name, **options), "order", grid=grid).decoding(None, 1)

    found = build_order(Grid(((4, 4),)), "cells", count=(2, 2))
    np.testing.assert_array_equal(found.slots, [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15])
    np.testing.assert_array_equal(found.sizes, [4] * 4)
    found = build_order(Grid(((2, 2),), frames=4), "cells", count=(2, 2, 1))
    np.testing.assert_array_equal(found.slots, [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15])
    found = build_order(Grid(((2, 3),)), "chunks", size=2)
    np.testing.assert_array_equal(found.slots, np.arange(6))
    np.testing.assert_array_equal(found.steps, [0, 0, 1, 1, 2, 2])


def test_masked_training_order():
    order = orders.RandomSets(Grid(((16, 16),)), steps=8).training(jax.random.key(0), np.zeros((4000, 256)))
    masked = np.asarray(order.steps).sum(axis=1)
    # The mean of a Gaussian around 1 with deviation 0.25, cut to [0.7, 1]; rounding up adds half a slot.
    assert masked.min() >= 180 and masked.max() <= 256
    assert abs((masked.mean() - 0.5) / 256 - 0.8670) < 0.005


def test_masked_training_order_by_level():
    order = orders.LevelSets(Grid(((8, 8), (16, 16))), (8, 4), ("normal", "cosine"), 0.7).training(
        jax.random.key(0), np.zeros((4000, 320))
    )
    slots, steps = np.asarray(order.slots), np.asarray(order.steps)
    np.testing.assert_array_equal(np.sort(slots[:, :64]), np.tile(np.arange(64), (4000, 1)))
    assert np.all(np.diff(steps) >= 0) and set(np.unique(steps[:, :64])) == {0, 1}
    pivots, dense = (np.sum(x % 2, axis=1) for x in np.split(steps, [64], axis=1))
    assert pivots.min() == 45 and pivots.max() == 64 and abs((pivots.mean() - 0.5) / 64 - 0.8670) < 0.005
    # Of cos(pi u / 2) the mean is 2 / pi, and the share below 1/2 a third.
    assert dense.min() >= 1 and dense.max() <= 256 and abs((dense.mean() - 0.5) / 256 - 2 / np.pi) < 0.02
    assert abs(np.mean(dense <= 128) - 1 / 3) < 0.03


def test_random_orders_become_raster():
    order = orders.RandomToRaster(Grid(((4, 4),)), start=0.5, end=0.75)
    for step, share in ((0, 1.0), (500, 1.0), (625, 0.5), (687.5, 0.25), (750, 0.0), (1000, 0.0)):
        slots = np.asarray(
            order.training(jax.random.key(int(step)), np.zeros((2000, 16)), jnp.float32(step / 1000)).slots
        )
        np.testing.assert_array_equal(np.sort(slots, axis=1), np.broadcast_to(np.arange(16), slots.shape))
        assert abs(np.mean((slots != np.arange(16)).any(axis=1)) - share) < 0.04
        # Where random, any slot may come first.
        first = np.bincount(slots[(slots != np.arange(16)).any(axis=1), 0], minlength=16)
        assert share == 0.0 or first.min() > 0.5 * first.mean()
    for fixed in (order.training(None, np.zeros((3, 16))), order.decoding(None, 3)):
        np.testing.assert_array_equal(fixed.slots, np.arange(16))


@pytest.mark.parametrize("name", some_slow(SYSTEMS, SLOW_LOSS))
def test_loss_and_likelihood(name):
    """At the start of training a categorical head is uniform; the likelihood is the loss without dropout."""
    c, generator, params, tokenizer_params = make(name)
    content = contents(generator, 8)  # of some of which the class is dropped
    if (stop := generator.tokenizer.slot.stop) is not None:  # what was cut off isn't learnt
        content = content.at[:, -1].set(stop)
    labels, quantizer = labels_for(generator, 8), tokenizer_params["quantizer"]
    key = jax.random.key(2)
    loss = jax.jit(
        lambda p, train: generator.loss(p, quantizer, content, labels, key, train), static_argnums=1
    )
    value, metrics = loss(params, False)
    assert np.isfinite(value) and np.isfinite(list(metrics.values())).all()
    if name in ("var", "llamagen", "mar"):  # dropout of training is the blocks', which all have
        assert not np.allclose(value, loss(params, True)[0], rtol=1e-6, atol=0)
    if generator.head.explicit:
        heads = {k: v for k, v in params.items() if k.endswith("head")}
        params = params | jax.tree.map(jnp.zeros_like, heads)
        # With a head of masked words ten classes, none, and a mask.
        words = generator.tokenizer.vocab + 12 * bool(generator.head.shares)
        np.testing.assert_allclose(loss(params, False)[0], np.log(words), rtol=1e-5)
    if generator.head.explicit and not generator.ordering.random_decoding:
        nats = jax.jit(generator.log_likelihood)(params, quantizer, content, labels)
        exists = generator.tokenizer.slot.exists(content)
        codes = content.size if exists is None else exists.sum() * np.prod(content.shape[2:])
        np.testing.assert_allclose(-nats.sum() / codes, np.log(generator.tokenizer.vocab), rtol=1e-5)


@pytest.mark.parametrize("base", [llamagen, randar, arpg], ids=lambda base: base.__name__)
def test_nobody_looks_at_padding(base):
    """Whatever stands in a caption's padded rows changes no hidden vector, and what stands in the others does."""
    c = base()
    c.conditioning = part("caption", tokens=3, channels=8)
    generator = build(c)
    params = noisy(generator.init)
    content, order = jnp.arange(32).reshape(2, 16) % 16, Order(np.arange(16), np.arange(16))
    states = jax.random.normal(jax.random.key(1), (2, 3, 8))
    mask = jnp.array([[False, True, True], [False, False, True]])

    @jax.jit
    def hidden(states):
        captions = Captions(states, mask, jnp.zeros(2, bool))
        return generator.hidden(params, None, content, captions, order)[0]

    expected = hidden(states)
    chex.assert_trees_all_equal(hidden(jnp.where(mask[..., None], states, 7.0)), expected)
    assert np.all(np.any(hidden(states + 1.0) != expected, axis=(1, 2)))


def contents(generator, batch=2):
    """Some contents."""
    content = generator.tokenizer.slot.zeros(batch, generator.tokenizer.grid.size)
    noise = jax.random.normal(jax.random.key(0), content.shape)
    if content.dtype == noise.dtype:
        return content + noise
    return (9 * noise).astype(content.dtype) % min(generator.tokenizer.vocab, 16)


def loss_and_gradient(generator, params, quantizer):
    labels = labels_for(generator, 2)
    loss = lambda p, c: generator.loss(p, quantizer, c, labels, jax.random.key(3))[0]  # noqa: E731
    return jax.jit(jax.value_and_grad(loss))(params, contents(generator))


@pytest.mark.parametrize("name", some_slow(SYSTEMS, SYSTEMS.keys() - {"llamagen", "mamba"}))
def test_half_precision(name):
    """In bfloat16 the loss is near, and gradients are finite and float32."""
    c, generator, params, tokenizer_params = make(name)
    quantizer, labels = tokenizer_params["quantizer"], labels_for(generator, 2)
    loss = jax.jit(lambda p, c: generator.loss(p, quantizer, c, labels, jax.random.key(3))[0])
    c.compute_dtype = "bfloat16"
    found, gradient = loss_and_gradient(build(c), params, quantizer)
    np.testing.assert_allclose(found, loss(params, contents(generator)), rtol=0.05)
    for path, g in jax.tree_util.tree_leaves_with_path(gradient):
        assert g.dtype == jnp.float32 and np.isfinite(g).all(), jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", some_slow(["var", "llamagen", "rar"], ["var", "rar"]))
def test_what_is_kept_of_blocks(name):
    """Loss and gradients don't depend on it, nor on a loop over layers; each policy keeps less than the one before."""
    _, generator, params, tokenizer_params = make(name)
    labels, kept = labels_for(generator, 2), {}
    expected = loss_and_gradient(generator, params, tokenizer_params["quantizer"])
    scale = jax.tree.map(lambda g: jnp.max(jnp.abs(g)), expected)
    least = 1e-3 * max(map(float, jax.tree.leaves(scale)))  # of biases of keys all but rounding is 0
    for remat, scanned in (("none", True), ("none", False), ("products", True), ("blocks", True)):
        stages = tuple(dataclasses.replace(s, remat=remat, scanned=scanned) for s in generator.stages)
        other = dataclasses.replace(generator, stages=stages)
        found = loss_and_gradient(other, params, tokenizer_params["quantizer"])
        off = jax.tree.map(
            lambda a, b, s: jnp.max(jnp.abs(a - b)) / jnp.maximum(s, least), found, expected, scale
        )
        assert max(map(float, jax.tree.leaves(off))) < 2e-6, (remat, scanned)

        def loss(params, other=other):
            quantizer = tokenizer_params["quantizer"]
            return other.loss(params, quantizer, contents(other), labels, jax.random.key(3))[0]

        if scanned:
            pull = jax.eval_shape(lambda p: jax.vjp(loss, p)[1], params)  # noqa: B023
            kept[remat] = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull))
    assert kept["none"] > 1.2 * kept["products"] > 1.2**2 * kept["blocks"], kept


@pytest.mark.parametrize("name", some_slow(SYSTEMS, SYSTEMS.keys() - {*TRACED}))
def test_no_recompilation(name):
    """Other contents, labels, keys, progress and numbers of sampling are traced once."""
    _, generator, params, tokenizer_params = make(name)
    quantizer, traced = tokenizer_params["quantizer"], []

    @jax.jit
    def both(content, labels, key, progress, sampling):
        traced.append(name)
        loss = generator.loss(params, quantizer, content, labels, key, True, progress)
        return loss, decode(generator, params, quantizer, labels, key, sampling).content

    labels = labels_for(generator, 2)
    for i in range(2):
        sampling = Sampling.make(guidance=1.5 + i, temperature=1.0 - i / 2)
        turned = jax.tree.map(lambda x: x[:: 1 - 2 * i], labels)  # noqa: B023
        both.eval_shape(contents(generator) + i, turned, jax.random.key(i), jnp.float32(i), sampling)
    assert len(traced) == 1
