"""What every mixer must show under every order that it accepts: a new one adds a line to a table and inherits it."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen import parts
from vargen.layers import KERNEL_INIT
from vargen.layout import Layout
from vargen.mixers import MIXERS
from vargen.orders import raster
from vargen.slots import Grid

BATCH, WIDTH = 2, 8


@dataclasses.dataclass(frozen=True)
class Case:
    """The rows that come of an order, as a feed lays them out."""

    grid: Grid
    layout: Layout


def _shifted(grid: Grid, order) -> Case:
    places = np.concatenate([np.full((1, grid.places.shape[1]), -1), grid.places[:-1]])
    return Case(grid, Layout(np.asarray(order.steps), places))


def _whole(grid: Grid, prefix: int) -> Case:
    places = np.concatenate([np.full((prefix, grid.places.shape[1]), -1), grid.places])
    return Case(grid, Layout(np.zeros(len(places), np.int32), places))


PLAIN = Grid(((3, 4),))
LEVELS = Grid(((1, 1), (2, 2), (3, 3)))
VIDEO = Grid(((2, 3),), frames=3)

CASES = {
    # One slot a step, each row carrying the content before it.
    "raster": _shifted(PLAIN, raster(PLAIN)),
    # All of a level at once, each row lying where its slot does.
    "levels": Case(LEVELS, Layout(LEVELS.coords[:, 0], LEVELS.places)),
    # A random order in steps of unequal sizes, the same rows for all examples.
    "groups": Case(
        PLAIN,
        Layout(
            np.repeat(np.arange(4), (1, 2, 4, 5)),
            PLAIN.places[np.random.default_rng(0).permutation(PLAIN.size)],
        ),
    ),
    # Everyone sees everyone, after two rows of the condition.
    "all": _whole(PLAIN, 2),
    # A frame at a time.
    "frames": Case(VIDEO, Layout(VIDEO.coords[:, 1], VIDEO.places)),
}
SELDOM = ("groups", "frames")  # of few systems: slow where the others run the same code
GRADED = ("raster", "all", "frames")  # where gradients are taken too, which triples what there is to compile


def usual_quick(pairs):
    """Parameters (mixer, case) of a test, of which those of `SELDOM` are slow."""
    return [pytest.param(mixer, case, marks=[pytest.mark.slow] * (case in SELDOM)) for mixer, case in pairs]


# Known slots come first, and how many they are differs per example: MAR's encoder.
HIDING = Layout(jnp.zeros((BATCH, 4), jnp.int32), np.zeros((4, 2), np.int32))

# Name -> (a case that it accepts, options).
MIXED = dict(
    attention=("raster", dict(heads=2)),
    axial=("raster", dict(heads=2)),
    chain=("raster", dict(mixers=[dict(name="linear", heads=2), dict(name="gla", heads=2)])),
    conv_s5=("frames", dict(state=4)),
    gla=("raster", dict(heads=2, gate_rank=3)),
    lightnet=("raster", dict(heads=2, key_size=3, gate_rank=3)),
    linear=("raster", dict(heads=2)),
    mamba=("raster", dict(state=3)),
    mamba_2d=("raster", dict(state=3)),
    manhattan=("all", dict(heads=2)),
    retention=("raster", dict(heads=2)),
    s5=("raster", dict(state=4, blocks=2)),
    ssd=("raster", dict(heads=4, state_size=3)),
    ssm_2d=("raster", dict(state=3)),
    vssd=("raster", dict(heads=4, state_size=3)),
)


def build(name, options=None, dtype=jnp.float32):
    """A mixer of `MIXED` as a config builds it (with other options), checked against its case, and that case."""
    case, usual = CASES[MIXED[name][0]], MIXED[name][1]
    common = dict(grid=case.grid, width=WIDTH, kernel_init=KERNEL_INIT, out_init=KERNEL_INIT, dtype=dtype)
    mixer = parts.build(MIXERS, dict(usual if options is None else options, name=name), "mixer", **common)
    mixer.check(case.layout)
    return mixer, case


def make(mixer_class, case: Case, **options):
    """The mixer, checked against the case's layout; raises what `check` raises."""
    fields = mixer_class.__dataclass_fields__
    known = dict(
        grid=case.grid, width=WIDTH, kernel_init=KERNEL_INIT, out_init=KERNEL_INIT, dtype=jnp.float32
    )
    mixer = mixer_class(**{k: v for k, v in known.items() if k in fields}, **options)
    mixer.check(case.layout)
    return mixer


def init(mixer, case: Case, seed: int = 0):
    """Parameters none of which is zero, and rows [B, N, D]."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(BATCH, len(case.layout.times), WIDTH)), jnp.float32)
    one = Layout(np.zeros(1, np.int32), np.zeros((1, case.grid.places.shape[1]), np.int32))
    start = jax.jit(lambda k: nn.meta.unbox(mixer.init(k, x[:, :1], one)["params"]))(jax.random.key(seed))

    def moved(a):
        return jnp.asarray(a + 0.3 * rng.normal(size=a.shape), a.dtype)

    return jax.tree.map(moved, jax.tree.map(np.asarray, start)), x


def parallel(mixer, params, x, layout):
    return mixer.apply({"params": params}, x, layout)[0]


def by_steps(mixer, params, x, layout):
    """The cached form, a step at a time with its place known before tracing."""
    times, cache, out = layout.times, mixer.init_cache(len(x), 0), []
    for time in np.unique(times):
        (at,) = np.nonzero(times == time)
        low, high = int(at[0]), int(at[-1]) + 1
        here = dataclasses.replace(
            layout, times=times[low:high], coords=layout.coords[low:high], start=low, key_times=times
        )
        y, cache = mixer.apply({"params": params}, x[:, low:high], here, cache)
        out.append(y)
    return jnp.concatenate(out, axis=1)


def scanned(mixer, params, x, layout):
    """The cached form under `lax.scan`, everything about a row traced; for orders of one slot a step."""
    times, coords = jnp.asarray(layout.times), jnp.asarray(layout.coords)

    def body(cache, i):
        here = dataclasses.replace(
            layout, times=times[i][None], coords=coords[i][None], start=i, key_times=layout.times
        )
        row = jax.lax.dynamic_slice_in_dim(x, i, 1, axis=1)
        y, new = mixer.apply({"params": params}, row, here, cache)
        return jax.tree.map(lambda a, b: b.astype(a.dtype), cache, new), y[:, 0]

    cache = mixer.init_cache(len(x), x.shape[1])
    return jnp.moveaxis(jax.lax.scan(body, cache, jnp.arange(x.shape[1]))[1], 0, 1)


def check_mixer(mixer_class, case_name: str, tolerance: float = 2e-5, **options):
    """Parallel = cached = scanned; no row sees a later step; gradients (of GRADED) are finite, and none missing."""
    case = CASES[case_name]
    mixer = make(mixer_class, case, **options)
    params, x = init(mixer, case)
    layout = case.layout
    weight = np.random.default_rng(9).normal(size=x.shape).astype(np.float32)

    def weighted(p, x):
        y = parallel(mixer, p, x, layout)
        return jnp.sum(weight * y), y

    graded = case_name in GRADED
    run = jax.jit(jax.grad(weighted, has_aux=True) if graded else lambda p, x: (None, weighted(p, x)[1]))
    grads, expected = run(params, x)
    assert expected.shape == x.shape and np.isfinite(expected).all() and np.ptp(expected) > 1e-3
    if not layout.everyone:
        forms = (by_steps, scanned) if np.all(np.diff(layout.times) == 1) else (by_steps,)
        for found in jax.jit(lambda p, x: [form(mixer, p, x, layout) for form in forms])(params, x):
            np.testing.assert_allclose(found, expected, atol=tolerance, rtol=tolerance)
        for step in np.unique(layout.times)[1:]:
            earlier = layout.times < step
            changed = run(params, np.where(earlier[:, None], x, x + np.float32(1)))[1]
            np.testing.assert_allclose(
                np.asarray(changed)[:, earlier], np.asarray(expected)[:, earlier], atol=1e-6, err_msg="leak"
            )
    for path, g in jax.tree_util.tree_leaves_with_path(jax.tree.map(np.asarray, grads)):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 0, f"no gradient reaches {jax.tree_util.keystr(path)}"
    return mixer, params, x, expected
