"""State-space duality, VSSD and LightNet: their forms, and their values in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formulas import decayed, dense, double, heads, merge, silu, softmax
from harness import CASES, HIDING, check_mixer, make, usual_quick

from vargen.mixers.lightnet import LightNet
from vargen.mixers.short_conv import short_conv
from vargen.mixers.ssd import SSD, VSSD


def softplus(x):
    return np.log1p(np.exp(x))


def ssd_inputs(p, x, groups, convolved):
    """x, B and C per head, dt and A, after the convolution given."""
    value, key, query = np.split(silu(convolved), [16, 16 + 3 * groups], axis=-1)
    key, query = (np.repeat(y.reshape(*y.shape[:2], groups, 3), 4 // groups, axis=2) for y in (key, query))
    dt = softplus(dense(p["dt"], x) + p["dt_bias"])
    return value.reshape(*value.shape[:2], 4, 4), key, query, dt, -np.exp(p["a_log"])


def unmixed(p, x):
    return np.concatenate([dense(p[n], x) for n in ("value", "key", "query")], axis=-1)


def ssd_formula(p, x, layout):
    rows = np.pad(unmixed(p, x), ((0, 0), (3, 0), (0, 0)))
    convolved = p["conv_bias"] + sum(p["conv"][w] * rows[:, w : w + x.shape[1]] for w in range(4))
    value, key, query, dt, a = ssd_inputs(p, x, 2, convolved)
    decay = np.broadcast_to(np.exp(dt * a)[..., None], key.shape)
    y = decayed(query, key, value * dt[..., None], decay) * np.sqrt(3) + p["skip"][:, None] * value
    y = merge(y) * silu(dense(p["gate"], x))
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * p["norm"]["scale"]
    return dense(p["out"], y)


def vssd_formula(p, x, layout):
    rows, places, steps = unmixed(p, x), layout.coords, layout.times
    convolved = p["conv_bias"] + p["conv"][1, 1] * rows
    for i, j in np.ndindex(len(steps), len(steps)):
        at = places[j] - places[i]
        neighbours = i != j and np.abs(at).max() == 1 and not at[:-2].any()
        if neighbours and steps[i] == steps[j] and places[i].min() >= 0 and places[j].min() >= 0:
            convolved[:, i] += p["conv"][1 + at[-2], 1 + at[-1]] * rows[:, j]
    value, key, query, dt, a = ssd_inputs(p, x, 1, convolved)
    weights = np.einsum("bnhk,bmhk,bmh->bhnm", query, key, -dt * a) * (steps[:, None] >= steps)
    y = merge(np.einsum("bhnm,bmhv->bnhv", weights, value) + p["skip"][:, None] * value)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    y = y * p["norm"]["scale"] + p["norm"]["bias"]
    return dense(p["out"], y * dense(p["gate"], x))


def lightnet_formula(lrpe):
    def formula(p, x, layout):
        q, k, v = (heads(p[n], x) for n in ("query", "key", "value"))
        dim, axes = q.shape[-1], layout.coords.shape[-1]
        seen = layout.times[:, None] >= layout.times
        # [B, H, K, N, M]: a softmax over the visible rows for every key channel.
        weights = softmax(np.where(seen, k.transpose(0, 2, 3, 1)[..., None, :], -np.inf))
        if lrpe:
            per_axis = -(-dim // axes)
            for h, c in np.ndindex(2, dim):
                theta = 10000.0 ** (-2 * (h * dim + c % per_axis) / (2 * dim))
                place = np.maximum(layout.coords[:, c // per_axis], 0) * theta
                weights[:, h, c] *= np.cos(place[:, None] - place)
        y = merge(np.einsum("bnhk,bhknm,bmhv->bnhv", silu(q), weights, v)) / np.sqrt(dim)
        y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * p["norm"]["scale"]
        return dense(p["out"], y * silu(dense(p["gate_up"], dense(p["gate_down"], x))))

    return formula


NET = dict(heads=2, key_size=3, gate_rank=3)
MIXERS = {
    "ssd": (SSD, dict(heads=4, state_size=3, groups=2), ssd_formula, list(CASES)),
    "vssd": (VSSD, dict(heads=4, state_size=3), vssd_formula, list(CASES)),
    "lightnet": (LightNet, NET, lightnet_formula(False), ["raster", "groups", "all"]),
    "lightnet_lrpe": (LightNet, NET | dict(lrpe=True), lightnet_formula(True), list(CASES)),
}


@pytest.mark.parametrize("name,case", usual_quick((n, c) for n, m in MIXERS.items() for c in m[3]))
def test_forms_and_values(name, case):
    mixer_class, options, formula, _ = MIXERS[name]
    _, params, x, found = check_mixer(mixer_class, case, **options)
    expected = formula(double(params), double(x), CASES[case].layout)
    np.testing.assert_allclose(found, expected, atol=5e-5, rtol=2e-5)


def test_lightnet_large_keys():
    """Keys far from zero overflow exp: only their differences count."""
    mixer = make(LightNet, CASES["raster"], **NET)
    layout = CASES["raster"].layout
    key = 200.0 * jax.random.normal(jax.random.key(0), (2, 12, 2, 3))
    q, v = (jax.random.normal(jax.random.key(i), (2, 12, 2, n)) for i, n in ((1, 3), (2, 4)))

    def loss(key):
        y, new = mixer._scan(q, key, v, layout, None)
        return jnp.sum(y**2), (y, new)

    (_, (found, new)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(key)
    seen = layout.times[:, None] >= layout.times
    weights = softmax(np.where(seen, double(key).transpose(0, 2, 3, 1)[..., None, :], -np.inf))
    expected = np.einsum("bnhk,bhknm,bmhv->bnhv", double(q), weights, double(v)) / np.sqrt(3)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.isfinite(gradient).all() and np.isfinite(new["log_sum"]).all()


@pytest.mark.parametrize("mixer_class", [VSSD, LightNet])
def test_refuses_hidden_slots(mixer_class):
    mixer = make(mixer_class, CASES["all"], heads=2)
    with pytest.raises(ValueError, match=r"(vssd|lightnet): expected a feed whose rows see whole steps"):
        mixer.check(HIDING)


def test_options_are_checked():
    with pytest.raises(ValueError, match="vssd: conv: expected an odd side, found 4"):
        make(VSSD, CASES["all"], heads=2, conv=4)
    mixer, layout = make(SSD, CASES["raster"], heads=3), CASES["raster"].layout
    with pytest.raises(ValueError, match="mixer.heads: expected heads that divide 16 channels"):
        jax.eval_shape(lambda k: mixer.init(k, np.zeros((2, 12, 8), np.float32), layout), jax.random.key(0))


def test_short_conv_in_pieces():
    rng = np.random.default_rng(0)
    x, kernel, bias = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 7, 3), (4, 3), (3,)))
    whole, _ = short_conv(x, kernel, bias)
    tail, pieces = jnp.zeros((2, 3, 3)), []
    for low, high in ((0, 2), (2, 3), (3, 7)):
        y, tail = short_conv(x[:, low:high], kernel, bias, tail)
        pieces.append(y)
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), whole, atol=1e-6)
    np.testing.assert_array_equal(tail, x[:, -3:])
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (3, 0), (0, 0)))
    expected = np.stack([(padded[:, n : n + 4] * np.asarray(kernel)).sum(1) for n in range(7)], axis=1)
    np.testing.assert_allclose(whole, expected + np.asarray(bias), atol=1e-5)
