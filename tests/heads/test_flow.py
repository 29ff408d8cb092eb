"""The flow head against a dense float64 network, written from the formulas with the parameters by name."""

import functools
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import noisy, normal
from systems import arpg, himar, labels_for, mar, orthus
from uncached import uncached

from vargen import models
from vargen.config import part
from vargen.draws import Recorded
from vargen.heads.flow import Flow
from vargen.layout import Layout
from vargen.samplers import Sampling, decode

B, C, D, W, HEADS = 2, 3, 6, 16, 2
TIMES = np.repeat([0, 1, 2], [1, 4, 6])
COORDS = np.concatenate(
    [[[0, 0]], np.indices((2, 2)).reshape(2, -1).T * 4, np.indices((2, 3)).reshape(2, -1).T]
)


@pytest.fixture(scope="module", params=[False, True], ids=["v1", "v2"])
def made(request):
    head = Flow(
        C,
        depth=2,
        width=W,
        heads=HEADS,
        cross=request.param,
        sample_steps=7,
        times="late",
        guidance_until=0.4,
    )
    hidden = normal(1, 2 * B, len(TIMES), D)
    return (
        head,
        noisy(lambda key: nn.meta.unbox(head.init(key, hidden)["params"]), scale=0.3),
        np.asarray(hidden),
    )


def linear(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


def silu(x):
    return x / (1 + np.exp(-x))


def rms(x, scale=1.0):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale


def turned(x, coords):
    """[n, H, d]: pairs turned by place * 10000^(-2k / (d / 2)), the first half of the channels by rows."""
    half = x.shape[-1] // 2
    angles = np.concatenate(
        [coords[:, [a]] * 10000.0 ** (-np.arange(0, half, 2) / half) for a in (0, 1)], axis=-1
    )[:, None]
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)


def attention(x, other, p, coords):
    """Rows [n, W] look at all of the others [n, ...]."""
    q, k, v = (
        linear(y, p[n]).reshape(len(y), HEADS, -1)
        for n, y in (("query", x), ("key", other), ("value", other))
    )
    scores = np.einsum("nhd,mhd->hnm", turned(q, coords), turned(k, coords)) / math.sqrt(W // HEADS)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    y = np.einsum("hnm,mhd->nhd", weights / weights.sum(-1, keepdims=True), v)
    return linear(y.reshape(len(x), -1), p["out"])


def velocity(params, x, t, hidden, coords):
    """One step's rows alone: x [n, C], t [], hidden [n, D] -> [n, C]."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)["network"]
    angles = math.floor(1000 * t) * np.exp(-math.log(10000) * np.arange(128) / 128)
    time = linear(silu(linear(np.concatenate([np.cos(angles), np.sin(angles)]), p["time_1"])), p["time_2"])
    both, time, x = silu(time + linear(hidden, p["hidden"])), silu(time), linear(x, p["content"])
    for i in range(2):
        b = p[f"block_{i}"]
        if "cross" in b:
            (g1, s1, h1), (g2, s2, h2) = (
                np.split(linear(y, b[name]), 3, axis=-1)
                for y, name in ((time, "modulation_time"), (both, "modulation"))
            )
        else:
            g1, g2, s1, s2, h1, h2 = np.split(linear(both, b["modulation"]), 6, axis=-1)
        y = rms(x) * (1 + s1) + h1
        x = x + g1 * attention(y, y, b["attention"], coords)
        if "cross" in b:
            others = rms(hidden, b["norm_hidden"]["scale"])
            x = x + attention(rms(x, b["norm_row"]["scale"]), others, b["cross"], coords)
        y, f = rms(x) * (1 + s2) + h2, b["feed_forward"]
        gate = linear(y, f["gate"])
        gelu = gate * 0.5 * (1 + np.vectorize(math.erf)(gate / math.sqrt(2)))
        x = x + g2 * linear(gelu * linear(y, f["up"]), f["down"])
    shift, scale = np.split(linear(both, p["modulation_out"]), 2, axis=-1)
    return linear(rms(x) * (1 + scale) + shift, p["out"])


def test_training_keeps_steps_apart(made):
    head, params, hidden = made
    hidden = np.asarray(hidden[:B], np.float64)
    target, noise = np.random.default_rng(1).normal(size=(2, B, len(TIMES), C))
    of_step = np.random.default_rng(2).uniform(size=(B, 3))
    t = of_step[:, TIMES]
    layout = Layout(TIMES, COORDS)
    args = [jnp.asarray(x, jnp.float32) for x in (hidden, target)]
    args += [layout, jnp.asarray(t, jnp.float32), jnp.asarray(noise, jnp.float32)]
    found = np.asarray(jax.jit(lambda p: head.apply({"params": p}, *args, method="errors"))(params))
    for b in range(B):
        for step in range(3):
            at = TIMES == step
            x = (1 - of_step[b, step]) * target[b, at] + of_step[b, step] * noise[b, at]
            v = velocity(params, x, of_step[b, step], hidden[b, at], COORDS[at])
            expected = ((v - (noise - target)[b, at]) ** 2).mean(-1)
            np.testing.assert_allclose(found[b, at], expected, rtol=2e-4, atol=1e-5)


def test_euler_with_guidance(made):
    """Seven passes by the official times: 1, 0.65, 0.3 and 0.25 to 0; guidance from 0.4 on, of what the first drew."""
    head, params, hidden = made
    at = TIMES == 2
    layout, noise = Layout(TIMES[at], COORDS[at]), np.random.default_rng(3).normal(size=(B, at.sum(), C))
    times = [1.0, 0.65, 0.3, *np.linspace(0.25, 0, 4)]
    np.testing.assert_allclose(head.grid, times, atol=1e-6)
    draws = Recorded(normals=jnp.asarray(noise, jnp.float32))
    found = jax.jit(
        lambda p, w: (
            head.apply(
                {"params": p}, hidden[:, at], draws, layout, Sampling.make(), w, method="sample"
            ).content
        )
    )(params, jnp.float32(2.5))
    given = np.asarray(hidden[:, at], np.float64)
    for b in range(B):
        x = noise[b]
        for t, after in zip(times[:-1], times[1:], strict=True):
            c = velocity(params, x, np.float32(t), given[b], COORDS[at])
            u = velocity(params, x, np.float32(t), given[B + b], COORDS[at])
            x = x + (after - t) * (u + 2.5 * (c - u) if t <= 0.4 else c)
        np.testing.assert_allclose(found[b], x, rtol=1e-3, atol=2e-4)


def test_official_times():
    assert len(Flow(C, sample_steps=25, times="late").grid) == 25  # 24 passes
    np.testing.assert_allclose(Flow(C, sample_steps=4).grid, [1, 0.75, 0.5, 0.25, 0])


def test_slots_in_any_sequence(made):
    """What is told of each example's slots counts, not where their rows stand."""
    head, params, hidden = made
    rng, n = np.random.default_rng(4), len(TIMES)
    target, noise, t = (
        rng.normal(size=(B, n, C)),
        rng.normal(size=(B, n, C)),
        rng.uniform(size=(B, 3))[:, TIMES],
    )
    order = np.stack([rng.permutation(n) for _ in range(B)])

    @jax.jit
    def errors(hidden, target, times, coords, t, noise):
        args = (hidden, target, Layout(times, coords), t, noise)
        return head.apply({"params": params}, *args, method="errors")

    told = np.tile(TIMES, (B, 1)), np.tile(COORDS, (B, 1, 1))
    args = [
        np.asarray(x, np.float32 if x.dtype.kind == "f" else int)
        for x in (hidden[:B], target, *told, t, noise)
    ]
    expected = np.take_along_axis(np.asarray(errors(*args)), order, axis=1)
    turned = errors(*(x[np.arange(B)[:, None], order] for x in args))
    np.testing.assert_allclose(turned, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "base", [pytest.param(mar, marks=pytest.mark.slow), arpg], ids=lambda base: base.__name__
)
def test_over_other_feeds(base):
    """Slots at places of each example's own, in steps of several sizes that are padded, and in steps of one."""
    c = base()
    c.tokenizer, c.head = mar().tokenizer, part("flow", depth=1, width=8, heads=2, sample_steps=3)
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    params = noisy(generator.init)
    sampling = Sampling.make(guidance=2.0, temperature=0.9)
    args = (params, None, jnp.array([1, 2]), jax.random.key(5), sampling)
    found, order, *_ = jax.jit(functools.partial(decode, generator))(*args)
    assert order.sizes.max() > 1
    chex.assert_trees_all_close(found, uncached(generator, *args), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("base, whose", [(orthus, "picture"), (himar, "pivots")], ids=["segment", "round"])
def test_inside_other_heads(base, whose):
    """Heads of heads tell theirs what they are told of their own slots."""
    c = base()
    c.head.heads[whose] = part("flow", depth=1, width=8, heads=2, sample_steps=3)
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    labels, content = labels_for(generator, 2), tokenizer.slot.zeros(2, tokenizer.grid.size)

    def both(key):
        params, quantizer = generator.init(key), tokenizer.init(key)["quantizer"]
        found = decode(generator, params, quantizer, labels, key, Sampling.make(guidance=2.0)).content
        loss, _ = generator.loss(params, quantizer, content, labels, key)
        return loss, generator.sequence.part(found, "picture")

    loss, found = jax.eval_shape(both, jax.random.key(0))
    assert loss.shape == () and found.shape == content.shape


def test_a_step_has_one_time(made):
    """The times of training: the same for all slots of a step, others for others."""
    head, params, hidden = made
    seen = []

    class Spy(Flow):
        def errors(self, hidden, target, layout, t, noise):
            seen.append(t)
            return jnp.zeros(t.shape)

    spy = Spy(**{name: getattr(head, name) for name in ("channels", "depth", "width", "heads", "cross")})
    spy.apply(
        {"params": params},
        hidden,
        jnp.zeros((2 * B, len(TIMES), C)),
        Layout(TIMES, COORDS),
        method="loss",
        rngs=dict(head=jax.random.key(1)),
    )
    (t,) = seen
    chex.assert_trees_all_equal(t, t[:, np.array([0, 1, 5])][:, TIMES])
    assert len(np.unique(t)) == 6 * B
