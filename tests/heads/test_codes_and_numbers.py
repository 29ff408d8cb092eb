"""The head of a code and numbers beside it, its rows and targets by formulas in NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import normal
from systems import hart, make

from vargen import models
from vargen.config import part
from vargen.draws import keyed
from vargen.errors import UserError
from vargen.layout import Layout
from vargen.samplers import Sampling
from vargen.slots import Slot

SLOTS = np.arange(8)  # five bare ones, and three of the last level
LAST = slice(5, 8)


@functools.cache
def built():
    """The head, what it is applied with, and the codes' vectors [K, C]."""
    _, generator, params, tokenizer_params = make("hart")
    quantizer = tokenizer_params["quantizer"]
    return generator.head, generator.of_head(params), quantizer, np.asarray(quantizer["codebook"], np.float64)


def layout(slots=SLOTS):
    return Layout(np.zeros(len(slots), int), np.zeros((len(slots), 2), int), slots=slots)


def rows(hidden, vectors):
    """What the diffusion reads: float64 [..., D]."""
    params = built()[1]
    kernel, bias = (np.asarray(x, np.float64) for x in params["shared"].values())
    x = np.asarray(hidden, np.float64) + np.asarray(vectors, np.float64) @ kernel + bias
    x = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)
    return jnp.asarray(x * np.asarray(params["params"]["row_norm"]["scale"]), jnp.float32)


def content(batch=2):
    """A code and four numbers of each slot, zeros in the bare ones."""
    rng = np.random.default_rng(3)
    codes, numbers = rng.integers(0, 16, (batch, 8)), rng.normal(size=(batch, 8, 4)).astype(np.float32)
    numbers[:, :5] = 0
    return codes, numbers, Slot((5,), coded=16).joined(jnp.asarray(codes), jnp.asarray(numbers))


@pytest.mark.parametrize("told", ["true", pytest.param("drawn", marks=pytest.mark.slow)])
def test_loss(told):
    """The sum of both; of a drawn code, here the likeliest, the numbers' target is what that one leaves."""
    head, params, quantizer, table = built()
    head = head.clone(told=told, top_k=1, top_p=1.0, weight=0.7, scale=0.5)
    hidden, (codes, numbers, target) = normal(1, 2, 8, 16), content()
    weight = jnp.asarray([[1.0, 0, 1, 1, 1, 1, 1, 0], [1, 1, 0, 1, 1, 0, 1, 1]])
    rngs = {"head": jax.random.key(2)}
    own, left = codes[:, LAST], numbers[:, LAST]
    if told == "drawn":
        logits = head.apply(params, hidden, method=lambda m, x: m.codes.codes(x))
        own = np.argmax(logits, axis=-1)[:, LAST]
        left = left + table[codes[:, LAST]] - table[own]
        assert np.any(own != codes[:, LAST])

    def apart(m):
        nats, _ = m.codes.loss(hidden, jnp.asarray(codes), None, weight)
        told = rows(hidden[:, LAST], table[own])
        error, _ = m.numbers.loss(told, jnp.asarray(left / 0.5, jnp.float32), None, weight[:, LAST])
        return nats, error

    loss, metrics = head.apply(
        params, hidden, target, layout(), weight, True, quantizer, method="loss", rngs=rngs
    )
    nats, error = head.apply(params, method=apart, rngs=rngs)
    np.testing.assert_allclose(loss, nats + 0.7 * error, rtol=1e-5)
    np.testing.assert_allclose([metrics["codes_loss"], metrics["numbers_loss"]], [nats, error], rtol=1e-5)


def test_slots_that_are_traced():
    """Samples are the same; in the loss what stands in bare slots for numbers plays no role."""
    head, params, quantizer, _ = built()
    hidden, (codes, numbers, target) = normal(1, 2, 8, 16), content()
    draws, rngs = keyed(jax.random.key(4), 2, 8), {"head": jax.random.key(2)}

    @jax.jit
    def run(slots, target):
        own = dataclasses.replace(layout(), slots=slots)
        args = (hidden, target, own, None, True, quantizer)
        return head.apply(params, *args, method="loss", rngs=rngs)[0], drawn(hidden, own, draws)

    slots = jnp.tile(SLOTS, (2, 1))
    loss, found = run(slots, target)
    np.testing.assert_allclose(found, drawn(hidden, layout(), draws), atol=1e-4)
    bare, last = (np.isin(SLOTS, SLOTS[x])[:, None] for x in (slice(0, 5), LAST))
    same, other = (head.slot.joined(jnp.asarray(codes), jnp.asarray(numbers + x)) for x in (bare, last))
    np.testing.assert_allclose(run(slots, same)[0], loss, rtol=1e-6)
    assert abs(run(slots, other)[0] - loss) > 1e-3


def drawn(hidden, told, draws, guidance=None, **options):
    head, params, quantizer, _ = built()
    settings = dataclasses.replace(Sampling.make(), **options)
    return head.apply(params, hidden, draws, told, settings, guidance, quantizer, method="sample").content


@pytest.mark.parametrize("guidance", [None, 1.7])
def test_sample(guidance):
    """Codes of all slots, then numbers given the code of those that have some; in the others zeros."""
    head, params, _, table = built()
    hidden, draws = normal(1, 2 if guidance is None else 4, 8, 16), keyed(jax.random.key(4), 2, 8)
    found = np.asarray(drawn(hidden, layout(), draws, guidance))
    settings = Sampling.make()

    def apart(m):
        codes = m.codes.sample(hidden, draws.of(0), None, settings, guidance).content
        vectors = table[np.asarray(codes)[:, LAST]]
        told = rows(hidden[:, LAST], np.concatenate([vectors] * (len(hidden) // 2)))
        own = draws.of(1).at(jnp.tile(jnp.arange(5, 8), (2, 1)))
        return codes, m.numbers.sample(told, own, None, settings, guidance).content

    codes, numbers = head.apply(params, method=apart)
    np.testing.assert_array_equal(found[..., 0], codes)
    np.testing.assert_array_equal(found[:, :5, 1:], 0)
    np.testing.assert_allclose(found[:, LAST, 1:], head.scale * numbers, atol=1e-4)
    # Bare slots alone: codes are all there is.
    some = np.asarray(
        drawn(hidden[:, :5], layout(SLOTS[:5]), draws.at(jnp.tile(jnp.arange(5), (2, 1))), guidance)
    )
    np.testing.assert_array_equal(some, found[:, :5])


def test_filters():
    """They act on the codes."""
    head, params, _, _ = built()
    hidden = normal(1, 2, 8, 16)
    found = drawn(hidden, layout(), keyed(jax.random.key(5), 2, 8), top_k=1)
    likeliest = np.argmax(head.apply(params, hidden, method=lambda m, x: m.codes.codes(x)), axis=-1)
    np.testing.assert_array_equal(found[..., 0], likeliest)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(tokenizer=dict(beside=False)),
            "head hybrid: expected a tokenizer of a code and numbers beside it, such as hybrid_multiscale "
            r"\(beside=True\), found slots of one of 16 codes",
        ),
        (
            dict(head=part("categorical")),
            "head categorical: expected a tokenizer of one code a slot, found slots of one of 16 codes and . numbers"
            r".*; the head hybrid takes these",
        ),
        (
            dict(head=part("diffusion")),
            "head diffusion: expected a tokenizer of latents, found slots of one of 16",
        ),
        (
            dict(head=dict(heads=dict(codes=part("staged"), numbers=part("diffusion")))),
            "config field head.heads.codes: expected a head of one code .*, found staged",
        ),
        (
            dict(head=dict(heads=dict(codes=part("categorical"), numbers=part("velocity")))),
            "config field head.heads.numbers: expected a head .* in one pass, such as diffusion, found velocity",
        ),
        (
            dict(head=dict(heads=dict(codes=part("categorical")))),
            "config field head.heads: expected a head for each of codes, numbers, found codes",
        ),
        (
            dict(order=dict(least=99)),
            "config field order.least: expected at most 16, the last level's slots, found 99",
        ),
    ],
)
def test_misfits(change, message):
    c = hart()
    for axis, value in change.items():
        c[axis] = value if "name" in value else {**c[axis].to_dict(), **value}
    with pytest.raises(UserError, match=message):
        models.build_generator(c, models.build_tokenizer(c))
