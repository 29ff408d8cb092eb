"""The likelihood where orders are drawn: what an order gives, and that the mean over orders bounds the whole."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import noisy
from systems import SYSTEMS, arpg, make, randar

from vargen import flops, models, orders
from vargen.config import part
from vargen.draws import Told
from vargen.model import Model
from vargen.orders import Order
from vargen.samplers import Sampling, decode, likelihood

KINDS = dict(
    var="exact",
    llamagen="exact",
    rar="exact",
    rqtransformer="exact",
    randar="bound",
    arpg="bound",
    maskgit="none",
    mar="none",
    hmar_masked="none",
)


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    c = SYSTEMS[name]()
    assert likelihood.kind(models.build_generator(c, models.build_tokenizer(c)))[0] == KINDS[name]


def small(system):
    """A system of four slots."""
    c = system()
    c.data.image_size, c.order = 8, part("random")
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    return generator, noisy(generator.init), jnp.asarray([[3, 1, 7, 7], [0, 15, 2, 9]]), jnp.asarray([1, 2])


@pytest.mark.parametrize("system", [randar, pytest.param(arpg, marks=pytest.mark.slow)])
def test_orders_bound_the_whole(system):
    """p(x) is the mean over all 24 orders of four slots; -log of it is less than the mean of -log p(x | order), which
    few drawn orders estimate."""
    generator, params, content, labels = small(system)

    @jax.jit
    def nats(slots):
        order = Order(slots, np.arange(4))
        found = decode(generator, params, None, labels, jax.random.key(0), Sampling.make(), order=order,
            draws=Told(content), scored=True)  # fmt: skip
        return jnp.sum(found.score, axis=1)

    every = np.stack([nats(jnp.asarray(slots)) for slots in itertools.permutations(range(4))])
    exact = np.log(np.mean(np.exp(every.astype(np.float64)), axis=0))
    assert np.all(every.std(axis=0) > 1e-3)  # orders differ
    bound = every.mean(axis=0)
    assert np.all(bound < exact)
    one = jax.jit(lambda key: likelihood.in_drawn_order(generator, params, None, content, labels, key))
    drawn = np.stack([one(jax.random.key(i)) for i in range(200)])
    for e, row in enumerate(drawn.T):  # each is that of one of the orders, and their mean is the bound
        assert np.all(np.abs(row[:, None] - every[:, e]).min(axis=1) < 1e-4)
    np.testing.assert_allclose(drawn.mean(axis=0), bound, atol=4 * np.max(every.std(axis=0)) / np.sqrt(200))


@dataclasses.dataclass(frozen=True)
class AlwaysRaster(orders.Random):
    """An order that is drawn, but is always the same."""

    def decoding(self, key, batch, steps=0, given=None):
        return orders.raster(self.grid)


def test_a_degenerate_order_is_exact():
    """One slot after another in raster order, by steps as by one whole pass over the sequence."""
    generator, params, content, labels = small(arpg)
    drawn = dataclasses.replace(generator, ordering=AlwaysRaster(generator.sequence.grid, 4, "cosine"))
    fixed = dataclasses.replace(
        generator, ordering=orders.Fixed(generator.sequence.grid, orders.raster(generator.sequence.grid))
    )
    assert [likelihood.kind(g)[0] for g in (drawn, fixed)] == ["bound", "exact"]
    found = jax.jit(lambda k: likelihood.in_drawn_order(drawn, params, None, content, labels, k))(
        jax.random.key(0)
    )
    np.testing.assert_allclose(found, jax.jit(fixed.log_likelihood)(params, None, content, labels), rtol=1e-5)


@pytest.mark.parametrize("name", ["llamagen", "rqtransformer"])
def test_told_codes_have_the_likelihood_of_a_whole_pass(name):
    _, generator, params, tokenizer_params = make(name)
    quantizer = tokenizer_params["quantizer"]
    shape = (2, generator.sequence.grid.size, *generator.sequence.slot.shape)
    content, labels = jax.random.randint(jax.random.key(3), shape, 0, 16), jnp.asarray([1, 2])
    both = jax.jit(
        lambda p: (
            likelihood.in_drawn_order(generator, p, quantizer, content, labels, jax.random.key(0)),
            generator.log_likelihood(p, quantizer, content, labels),
        )
    )(params)
    np.testing.assert_allclose(*both, rtol=1e-4)


@pytest.mark.slow
def test_models_say_what_their_likelihood_is():
    config, generator, params, tokenizer_params = make("randar")
    config.sampling.steps = 3
    model = Model(config, tokenizer_params, params)
    assert model.likelihood == ("bound", "mean over drawn orders")
    content, _, passes = model.drawn([1, 2], 0)
    assert passes.tolist() == [3, 3]
    with pytest.raises(ValueError, match="fixed order"):
        model.log_likelihood(content, [1, 2])
    # In three steps, as it samples: what was said of slots when they were drawn, by the same order.
    found = model.log_likelihood(content, [1, 2], 5)
    expected = decode(
        generator, params, tokenizer_params["quantizer"], jnp.asarray([1, 2]), jax.random.key(5),
        Sampling.make(steps=3), draws=Told(content), scored=True,
    ).score.sum(axis=1)  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_flops_of_sampling():
    """LlamaGen without guidance: 16 slots one by one, the products of a row counted by hand as in test_work, attention
    over all 17 rows of the cache or fewer; guidance doubles what isn't the decoder's."""
    config, _, params, tokenizer_params = make("llamagen")
    model = Model(config, tokenizer_params, params)
    content = model.tokenizer.slot.zeros(1, model.tokenizer.grid.size)
    decoder = flops.products(jax.make_jaxpr(model.tokenizer.decode)(tokenizer_params, content).jaxpr)
    drawing = model.sampling_flops() - decoder
    row = 2 * (2 * (16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 64) + 2 * 16 * 16 // 2)
    least, most = 16 * row, 16 * (row + 2 * 4 * 16 * 17)
    assert decoder > 0 and least <= drawing <= most
    assert model.sampling_flops(guidance=2.0) == 2 * drawing + decoder
    assert model.sampling_flops(4) == model.sampling_flops()
    assert model.sampling_flops(policy="jacobi") is None
