"""Linear attention, GLA, retention and Manhattan attention: their forms, and their values in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formulas import decayed, dense, double, heads, merge, silu, softmax
from harness import CASES, HIDING, check_mixer, make, usual_quick

from vargen.mixers.gla import GLA
from vargen.mixers.linear import LinearAttention
from vargen.mixers.manhattan import Manhattan
from vargen.mixers.retention import Retention


def linear_formula(p, x, layout):
    q, k, v = (heads(p[n], x) for n in ("query", "key", "value"))
    q, k = (np.where(y > 0, y + 1, np.exp(y)) for y in (q, k))
    seen = layout.times[:, None] >= layout.times
    weights = np.einsum("bnhk,bmhk->bhnm", q, k) * seen
    weights /= weights.sum(-1, keepdims=True)
    return dense(p["out"], merge(np.einsum("bhnm,bmhv->bnhv", weights, v)))


def gla_formula(p, x, layout):
    q, k, v, gate = (heads(p[n], x) for n in ("query", "key", "value", "gate"))
    decay = heads(p["decay_up"], dense(p["decay_down"], x))
    y = decayed(q, k, v, (1 / (1 + np.exp(-decay))) ** (1 / 16))
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * p["scale"]
    return dense(p["out"], merge(y * silu(gate)))


def retention_formula(p, x, layout):
    q, k, v, gate = (heads(p[n], x) for n in ("query", "key", "value", "gate"))
    angles = np.arange(x.shape[1])[:, None, None] * 10000.0 ** -np.linspace(0, 1, q.shape[-1] // 2)

    def turned(y):
        z = (y[..., 0::2] + 1j * y[..., 1::2]) * np.exp(1j * angles)
        return np.stack([z.real, z.imag], -1).reshape(y.shape)

    gamma = np.broadcast_to(np.array([1 - 1 / 32, 1 - 1 / 64])[:, None], q.shape)
    y = decayed(turned(q), turned(k), v, gamma)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    return dense(p["out"], merge(y * silu(gate)))


def manhattan_formula(decomposed):
    def formula(p, x, layout):
        height, width = 3, 4
        prefix = x.shape[1] - height * width
        q, k, v = (heads(p[n], x) for n in ("query", "key", "value"))
        index = np.maximum(np.arange(x.shape[1]) - prefix, 0)
        angles = index[:, None, None] * 10000.0 ** -np.linspace(0, 1, q.shape[-1] // 2)
        q, k = ((y[..., 0::2] + 1j * y[..., 1::2]) * np.exp(1j * angles) for y in (q, k))
        logits = np.einsum("bnhk,bmhk->bhnm", q, k.conj()).real / np.sqrt(v.shape[-1])
        row, column = layout.coords.T
        placed = row >= 0
        both = placed[:, None] & placed
        down, across = (np.abs(c[:, None] - c) * both for c in (row, column))
        gamma = np.log(1 - 2.0 ** (-2 - 4 * np.arange(2) / 2))[:, None, None]

        def attend(distance, seen, value):
            weights = softmax(np.where(seen, logits + gamma * distance, -np.inf))
            return np.einsum("bhnm,bmhv->bnhv", weights, value)

        if decomposed:
            # Rows of the condition keep their values in the first pass, and see everyone's own in the second.
            line = np.where(both, row[:, None] == row, np.eye(len(row), dtype=bool))
            first = attend(across, line, v)
            column_or_not = (column[:, None] == column) & both | placed[:, None] & ~placed
            everyone = np.where(placed[:, None], column_or_not, True)
            y = attend(down, everyone, first)
            y[:, ~placed] = attend(down * 0, everyone, v)[:, ~placed]
        else:
            y = attend(down + across, np.ones_like(both), v)
        value = dense(p["value"], x)
        local = p["local_bias"] + value * p["local"][2, 2]
        for i, j in np.ndindex(both.shape):
            if i != j and both[i, j]:
                at = layout.coords[j] - layout.coords[i] + 2
                if np.all((at >= 0) & (at < 5)):
                    local[:, i] += value[:, j] * p["local"][tuple(at)]
        return dense(p["out"], merge(y) + local)

    return formula


MIXERS = {
    "linear": (LinearAttention, dict(heads=2), linear_formula, list(CASES)),
    "gla": (GLA, dict(heads=2, gate_rank=3), gla_formula, list(CASES)),
    "retention": (Retention, dict(heads=2, rotary=True), retention_formula, list(CASES)),
    "manhattan": (Manhattan, dict(heads=2), manhattan_formula(True), ["all"]),
    "manhattan_pairs": (Manhattan, dict(heads=2, decomposed=False), manhattan_formula(False), ["all"]),
}


@pytest.mark.parametrize("name,case", usual_quick((n, c) for n, m in MIXERS.items() for c in m[3]))
def test_forms_and_values(name, case):
    mixer_class, options, formula, _ = MIXERS[name]
    _, params, x, found = check_mixer(mixer_class, case, **options)
    expected = formula(double(params), double(x), CASES[case].layout)
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


def test_retention_without_gate_or_rotation():
    check_mixer(Retention, "raster", heads=2, gate=False)


def test_linear_refuses_hidden_slots():
    mixer = make(LinearAttention, CASES["all"], heads=2)
    with pytest.raises(ValueError, match="linear: expected a feed whose rows see whole steps"):
        mixer.check(HIDING)
    layout = CASES["raster"].layout
    with pytest.raises(ValueError, match="steps known before tracing"):
        traced = type(layout)(jnp.asarray(layout.times), layout.coords)
        jax.eval_shape(lambda k: mixer.init(k, np.zeros((2, 12, 8), np.float32), traced), jax.random.key(0))


@pytest.mark.parametrize("case,message", [("raster", "rows all see each other"), ("levels", "rows all see")])
def test_manhattan_refuses_steps(case, message):
    with pytest.raises(ValueError, match=message):
        make(Manhattan, CASES[case], heads=2)


def test_manhattan_refuses_other_grids():
    mixer = make(Manhattan, CASES["all"], heads=2)
    everyone = CASES["all"].layout
    for case, found in (("levels", "found 3 levels and 1 frames"), ("frames", "found 1 levels and 3 frames")):
        with pytest.raises(ValueError, match=found):
            mixer.clone(grid=CASES[case].grid).check(everyone)
    shuffled = CASES["groups"].layout
    with pytest.raises(ValueError, match="a whole grid, row by row"):
        jax.eval_shape(lambda k: mixer.init(k, np.zeros((2, 12, 8), np.float32), shuffled), jax.random.key(0))
