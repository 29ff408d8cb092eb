"""Attention under every order: its two forms, and its options."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from harness import CASES, check_mixer, init, make, parallel

from vargen.layout import Layout
from vargen.mixers import Attention
from vargen.mixers.attention import dropped
from vargen.mixers.rope import rotate

OPTIONS = {
    "plain": dict(heads=2),
    "grouped_l2_places": dict(heads=2, kv_heads=1, qk_norm="l2", bias="qkv", rope="places"),
    "layer_sequence_window": dict(heads=2, qk_norm="layer", rope="sequence", window=1),
}
PAIRS = [("plain", case) for case in CASES] + [
    ("grouped_l2_places", "raster"),
    ("grouped_l2_places", "all"),
    ("layer_sequence_window", "raster"),
    ("layer_sequence_window", "groups"),
]


@pytest.mark.parametrize("name,case", PAIRS)
def test_forms_agree(name, case):
    check_mixer(Attention, case, **OPTIONS[name])


def test_rotary_positions_in_three_dimensions():
    """Logits depend on differences of the coordinates alone, in every axis; a third of the channels each."""
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 12))
    turn = lambda x, at: rotate(x, np.array([at]))[0, 0, 0]  # noqa: E731
    base = turn(q, (5, 3, 7)) @ turn(k, (2, 3, 1))
    np.testing.assert_allclose(turn(q, (6, 9, 8)) @ turn(k, (3, 9, 2)), base, atol=1e-5)
    for axis in range(3):
        at = np.eye(3, dtype=int)[axis]
        moved = np.asarray(turn(q, at)) != np.asarray(turn(q, (0, 0, 0)))
        assert moved[4 * axis : 4 * axis + 4].all() and moved.sum() == 4


RATE = 0.3
# Key heads, steps of queries and of keys, window.
DROPPED = {
    "causal": (4, np.arange(6), np.arange(6), None),
    "per_example": (  # the first query sees nothing
        4,
        np.array([[0, 1, 1, 2, 3, 4], [5, 5, 0, 0, 2, 2]]),
        np.array([[1] * 6, [0, 1, 2, 3, 4, 5]]),
        None,
    ),
    "grouped_window": (2, np.repeat(np.arange(3), 2), np.repeat(np.arange(3), 2), 1),
}


@pytest.mark.parametrize("name", DROPPED)
def test_dropout_of_weights(name):
    """Values and gradients by the definition in float64, with the same weights dropped."""
    groups, q_step, k_step, window = DROPPED[name]
    heads, dim, scale, key = 4, 3, 0.7, jax.random.key(5)
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 6, h, dim)) for h in (heads, groups, groups))
    kept = np.asarray(jax.random.bernoulli(key, 1 - RATE, (2, groups, heads // groups, 6, 6)))
    kept = kept.reshape(2, heads, 6, 6)
    assert 0.5 < kept.mean() < 0.9

    def by_definition(q, k, v, module):
        """softmax over what is seen, then the mask over 1 - RATE, then the values."""
        k, v = (module.repeat(x, heads // groups, axis=2) for x in (k, v))
        apart = np.broadcast_to(q_step, (2, 6))[:, :, None] - np.broadcast_to(k_step, (2, 6))[:, None]
        seen = (apart >= 0) & (apart <= (9 if window is None else window))
        weights = module.exp(scale * module.einsum("bnhd,bmhd->bhnm", q, k)) * seen[:, None]
        total = module.sum(weights, axis=-1, keepdims=True)
        weights = weights / module.where(total > 0, total, 1) * kept / (1 - RATE)
        return module.einsum("bhnm,bmhd->bnhd", weights, v)

    def found(q, k, v):
        return dropped(q, k, v, q_step, k_step, key, rate=RATE, window=window, scale=scale)

    arrays = [np.float32(x) for x in (q, k, v)]
    expected = by_definition(q, k, v, np)
    np.testing.assert_allclose(jax.jit(found)(*arrays), expected, atol=1e-5)
    if name == "per_example":
        assert not expected[0, 0].any()  # it sees nothing
    wanted = rng.normal(size=expected.shape)
    # A directional derivative by central differences of the definition.
    along = [rng.normal(size=x.shape) for x in (q, k, v)]
    steps = [by_definition(*(x + h * a for x, a in zip((q, k, v), along)), np) for h in (1e-6, -1e-6)]
    slope = np.sum(wanted * (steps[0] - steps[1])) / 2e-6
    gradients = jax.jit(jax.grad(lambda *x: jax.numpy.sum(wanted * found(*x)), argnums=(0, 1, 2)))(*arrays)
    assert all(np.isfinite(g).all() for g in gradients)
    np.testing.assert_allclose(sum(np.sum(g * a) for g, a in zip(gradients, along)), slope, rtol=1e-4)


def test_dropout_of_weights_is_of_training_alone():
    """Elsewhere the very same numbers; in training others, around them."""
    case = CASES["raster"]
    with_, without = (make(Attention, case, heads=2, weight_dropout=r) for r in (RATE, 0.0))
    params, x = init(with_, case)
    np.testing.assert_array_equal(
        parallel(with_, params, x, case.layout), parallel(without, params, x, case.layout)
    )

    @jax.jit
    def trained(keys):
        one = lambda k: with_.apply({"params": params}, x, case.layout, None, True, rngs={"dropout": k})[0]  # noqa: E731
        return jax.vmap(one)(keys)

    many = trained(jax.random.split(jax.random.key(0), 4000))
    error = np.std(many, axis=0) / np.sqrt(len(many))
    difference = np.mean(many, axis=0) - parallel(without, params, x, case.layout)
    assert np.all(np.abs(difference) < 5 * error + 1e-5)
    assert np.std(many, axis=0).mean() > 0.05


def test_initial_projections_in_have_a_gain():
    one = Layout(np.zeros(1, np.int32), np.zeros((1, 2), np.int32))
    plain, half = (make(Attention, CASES["raster"], heads=2, in_gain=gain) for gain in (1.0, 0.5))
    plain, half = (
        nn.meta.unbox(m.init(jax.random.key(0), np.zeros((1, 1, 8)), one)["params"]) for m in (plain, half)
    )
    for name in ("query", "key", "value", "out"):
        factor = 1.0 if name == "out" else 0.5
        np.testing.assert_allclose(half[name]["kernel"], factor * plain[name]["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(heads=3), "mixer.heads: expected a divisor of the width 8, found 3"),
        (dict(heads=4, kv_heads=3), "mixer.kv_heads: expected a divisor of the 4 heads, found 3"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(Attention, CASES["raster"], **options)
