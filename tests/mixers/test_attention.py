"""Attention under every order: its two forms, and its options."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from harness import CASES, check_mixer, init, make, parallel

from vargen.layout import HIDDEN, Layout, Memory, View
from vargen.mixers import Attention
from vargen.mixers.retention import Retention
from vargen.mixers.rope import half_angles, rotate
from vargen.slots import Grid

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


def test_norms_of_each_head():
    """Against float64 attention in which head h scales and shifts its normalised queries and keys by rows h."""
    case, eps = CASES["raster"], 1e-3
    mixer = make(
        Attention, case, heads=2, kv_heads=1, qk_norm="layer", norm_each=True, eps=eps, out_bias=False
    )
    params, x = init(mixer, case)
    assert (
        params["query_norm"]["scale"].shape == (2, mixer.head_dim)
        and params["key_norm"]["bias"].shape[0] == 1
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    w, y = jax.tree.map(np.float64, params), np.float64(x)

    def heads(name, count):
        return (y @ w[name]["kernel"]).reshape(*y.shape[:2], count, -1)

    def normed(name, count):
        z = heads(name, count)
        z = z - z.mean(-1, keepdims=True)
        z = z / np.sqrt((z * z).mean(-1, keepdims=True) + eps)
        return z * w[f"{name}_norm"]["scale"] + w[f"{name}_norm"]["bias"]

    q, k, v = normed("query", 2), normed("key", 1).repeat(2, axis=2), heads("value", 1).repeat(2, axis=2)
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(mixer.head_dim)
    scores = np.where(np.tri(y.shape[1], dtype=bool), np.exp(scores - scores.max(-1, keepdims=True)), 0)
    found = np.einsum("bhnm,bmhd->bnhd", scores / scores.sum(-1, keepdims=True), v)
    expected = found.reshape(y.shape) @ w["out"]["kernel"]
    np.testing.assert_allclose(
        parallel(mixer, params, x, case.layout), expected, atol=2e-5 * np.abs(expected).max()
    )
    plain = make(
        Attention, case, heads=2, kv_heads=1, qk_norm="layer", norm_affine=False, eps=eps, out_bias=False
    )
    ones = {
        k: {n: (v * 0 + (n == "scale")) if "norm" in k else v for n, v in x.items()}
        for k, x in params.items()
    }
    bare = {k: x for k, x in params.items() if "norm" not in k}
    assert jax.tree.map(np.shape, init(plain, case)[0]) == jax.tree.map(np.shape, bare)
    np.testing.assert_allclose(
        parallel(plain, bare, x, case.layout), parallel(mixer, ones, x, case.layout), atol=1e-5
    )
    with pytest.raises(ValueError, match="norm_each: needs qk_norm layer or rms, found none"):
        make(Attention, case, heads=2, norm_each=True).check(case.layout)


@pytest.mark.parametrize("own, given, window", [(None, 1, 1), (2, 0, 0), (0, 1, 0)])
def test_the_window_of_a_layout(own, given, window):
    """Counts as the mixer's own does, and of both the smaller; a mixer without windows sees that there is one."""
    layout = CASES["levels"].layout
    mixer, expected = (make(Attention, CASES["levels"], heads=2, window=w) for w in (own, window))
    params, x = init(mixer, CASES["levels"])
    narrow = dataclasses.replace(layout, window=given)
    assert narrow.hides and not narrow.same_for_all
    found = parallel(mixer, params, x, narrow)
    np.testing.assert_allclose(found, parallel(expected, params, x, layout), atol=1e-6)
    other = parallel(make(Attention, CASES["levels"], heads=2), params, x, layout)
    assert np.abs(found - other).max() > 1e-3


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


@pytest.mark.parametrize(
    "mixer, case, options, wanted",
    [
        (Attention, "raster", dict(heads=8, rope="sequence"), "2 channels for rope sequence, found 1"),
        (Attention, "raster", dict(heads=4, rope="places"), "4 channels for rope places, found 2"),
        (Attention, "frames", dict(heads=1, rope="places"), "6 channels for rope places, found 8"),
        (Attention, "raster", dict(heads=4, rope="halves"), "4 channels for rope halves, found 2"),
        (Attention, "frames", dict(heads=1, rope="halves"), "16 channels for rope halves, found 8"),
        (Retention, "raster", dict(heads=8, rotary=True), "2 channels out of 8 for rotary, found 8"),
    ],
)
def test_heads_divide_into_rotary_pairs(mixer, case, options, wanted):
    with pytest.raises(ValueError, match=f"mixer.heads: expected heads of a multiple of {wanted}"):
        make(mixer, CASES[case], **options)


def test_the_last_level_says_how_long_the_axes_are():
    coords = np.array([[5, 60], [0, 1]])
    found = half_angles(coords, 8, Grid(((1, 1), (64, 64))))
    np.testing.assert_array_equal(found, half_angles(coords, 8, Grid(((64, 64),))))


CLEAN, NOISY = np.repeat(np.arange(3), 2), np.repeat(np.arange(3), 2)
# Skip-causal (ACDiT): clean rows see clean ones of their own and earlier blocks, noisy rows clean ones of earlier
# blocks and noisy ones of their own.
SKIP_CAUSAL = Layout(
    np.concatenate([2 * CLEAN, 2 * NOISY - 1]),
    np.zeros((12, 2), np.int32),
    key_times=np.concatenate([2 * CLEAN, np.full(6, HIDDEN)]),
    views=(
        View(np.concatenate([np.full(6, -1), NOISY]), np.concatenate([np.full(6, HIDDEN), NOISY]), window=0),
    ),
)
UNSORTED = Layout(np.array([3, 0, 2, 0, 1, 2]), np.zeros((6, 2), np.int32))
RATE = 0.3


@pytest.mark.parametrize("layout", [CASES["raster"].layout, SKIP_CAUSAL], ids=["raster", "skip_causal"])
def test_dropout_of_weights_is_of_training_alone(layout):
    """Elsewhere the very same numbers; in training others, around them: of unions as well."""
    case = CASES["raster"]
    with_, without = (make(Attention, case, heads=2, weight_dropout=r) for r in (RATE, 0.0))
    params, _ = init(with_, case)
    x = jax.random.normal(jax.random.key(1), (2, len(layout.times), 8))
    np.testing.assert_array_equal(parallel(with_, params, x, layout), parallel(without, params, x, layout))

    @jax.jit
    def trained(keys):
        one = lambda k: with_.apply({"params": params}, x, layout, None, True, rngs={"dropout": k})[0]  # noqa: E731
        return jax.vmap(one)(keys)

    many = trained(jax.random.split(jax.random.key(0), 4000))
    error = np.std(many, axis=0) / np.sqrt(len(many))
    difference = np.mean(many, axis=0) - parallel(without, params, x, layout)
    assert np.all(np.abs(difference) < 5 * error + 1e-5)
    assert np.std(many, axis=0).mean() > 0.05


def _seen(layout):
    """Who sees whom, by hand: bool [N, M]."""
    keys = layout.times if layout.key_times is None else layout.key_times
    seen = layout.times[:, None] >= keys[None]
    for view in layout.views:
        apart = view.times[:, None] - view.key_times[None]
        seen = seen | ((apart >= 0) & (apart <= (HIDDEN if view.window is None else view.window)))
    return seen


def _dense(params, x, seen, memory=None):
    """Two heads of attention in float64; keys and values [B, M, 2, 4] from a memory where there is one."""
    p = {name: np.asarray(params[name]["kernel"], np.float64) for name in params}
    split = lambda name: (np.asarray(x, np.float64) @ p[name]).reshape(*x.shape[:2], 2, 4)  # noqa: E731
    k, v = (split("key"), split("value")) if memory is None else map(np.float64, (memory.key, memory.value))
    logits = np.einsum("bnhd,bmhd->bhnm", split("query"), k) / 2
    weights = np.exp(logits) * seen
    weights /= np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300)
    return np.einsum("bhnm,bmhd->bnhd", weights, v).reshape(x.shape) @ p["out"] + np.asarray(
        params["out"]["bias"]
    )


@pytest.mark.parametrize("layout", [SKIP_CAUSAL, UNSORTED], ids=["skip_causal", "unsorted"])
def test_any_layout_known_before_tracing(layout):
    """Unions of visibilities, and rows in no sequence, against the definition."""
    case = CASES["raster"]
    mixer = make(Attention, case, heads=2)
    params, _ = init(mixer, case)
    x = jax.random.normal(jax.random.key(1), (2, len(layout.times), 8))
    seen = _seen(layout)
    if layout is SKIP_CAUSAL:
        assert (
            seen[:6, 6:].sum() == 0
            and seen[6:, 6:].sum() == 12
            and seen[8, :6].tolist() == [True] * 2 + [False] * 4
        )
    found = jax.jit(lambda p, x: parallel(mixer, p, x, layout))(params, x)
    np.testing.assert_allclose(found, _dense(params, x, seen), atol=2e-5)


def test_rows_that_do_not_stay():
    """In the cached form rows after the first `keep` are seen in their own pass and by no later one."""
    case = CASES["raster"]
    mixer = make(Attention, case, heads=2)
    params, _ = init(mixer, case)
    x, coords = jax.random.normal(jax.random.key(1), (2, 7, 8)), np.zeros((7, 2), np.int32)
    # Rows 0 and 1 stay, 2 to 4 do not, 5 and 6 take their place.
    places = np.array([0, 1, 2, 3, 4, 2, 3])
    seen = (places[:, None] >= places[None]) & ~(
        (np.arange(7)[:, None] >= 5) & np.isin(np.arange(7), (2, 3, 4))
    )
    seen &= ~((np.arange(7)[:, None] < 5) & (np.arange(7) >= 5))
    expected = _dense(params, x, seen)

    def run(start, cache, low, high, keep, index):
        layout = Layout(index, coords[low:high], start, np.arange(7), keep=keep)
        return mixer.apply({"params": params}, x[:, low:high], layout, cache)

    first, cache = run(0, mixer.init_cache(2, 0), 0, 5, 2, places[:5])
    assert cache["key"].shape[1] == 2
    second, _ = run(2, cache, 5, 7, None, places[5:])
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), expected, atol=2e-5)
    # The same with everything traced, in a cache of fixed length.
    traced = jax.jit(run, static_argnums=(2, 3, 4))
    first, cache = traced(0, mixer.init_cache(2, 7), 0, 5, 2, places[:5])
    second, _ = traced(2, cache, 5, 7, None, places[5:])
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), expected, atol=2e-5)


def test_a_memory_takes_the_place_of_the_rows():
    mixer = make(Attention, CASES["raster"], heads=2)
    key, value = jax.random.normal(jax.random.key(2), (2, 2, 5, 2, 4))
    memory = Memory(key, value, np.array([0, 1, 1, 2, 4]))
    layout = Layout(np.array([1, 0, 3]), np.zeros((3, 2), np.int32), memory=memory)
    x = jax.random.normal(jax.random.key(1), (2, 3, 8))
    params = nn.meta.unbox(mixer.init(jax.random.key(0), x, layout)["params"])
    assert set(params) == {"query", "out"}
    seen = np.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]], bool)
    found, _ = mixer.apply({"params": params}, x, layout)
    np.testing.assert_allclose(found, _dense(params, x, seen, memory), atol=2e-5)


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
