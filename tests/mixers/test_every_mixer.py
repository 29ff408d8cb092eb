"""What every mixer must show of layouts that a feed may bring: it honours them, or refuses when the config is built.

One that is registered without a row in `MIXED` fails here. Both forms, leaks and gradients: `harness.check_mixer`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import CASES, init, parallel

from vargen import parts
from vargen.layers import KERNEL_INIT
from vargen.layout import HIDDEN, Memory, View
from vargen.mixers import MIXERS

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


def build(name):
    case = CASES[MIXED[name][0]]
    common = dict(grid=case.grid, width=8, kernel_init=KERNEL_INIT, out_init=KERNEL_INIT, dtype=jnp.float32)
    mixer = parts.build(MIXERS, dict(MIXED[name][1], name=name), "mixer", **common)
    mixer.check(case.layout)
    return mixer, case


def honours(mixer, layout):
    try:
        mixer.check(layout)
    except ValueError as error:
        assert str(error).startswith("mixer ") and "\n" not in str(error)
        return False
    return True


def run(mixer, layout):
    return jax.jit(lambda params, x: parallel(mixer, params, x, layout))


def test_no_mixer_is_left_out():
    assert MIXED.keys() == MIXERS.keys()


@pytest.mark.parametrize("name", MIXED)
def test_rows_out_of_sequence(name):
    """Rows in another sequence than that of their times give what they give in it, or are refused."""
    mixer, case = build(name)
    layout = case.layout
    if layout.everyone:
        layout = dataclasses.replace(layout, times=np.arange(len(layout.times)))
    shuffled = np.random.default_rng(0).permutation(len(layout.times))
    unsorted = dataclasses.replace(layout, times=layout.times[shuffled], coords=layout.coords[shuffled])
    if honours(mixer, unsorted):
        params, x = init(mixer, case)
        expected = run(mixer, layout)(params, x)[:, shuffled]
        np.testing.assert_allclose(run(mixer, unsorted)(params, x[:, shuffled]), expected, atol=2e-5)


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_do_not_stay(name):
    """A pass that keeps its first row alone leaves later ones as they are without the others, or is refused."""
    mixer, case = build(name)
    layout = case.layout
    if not honours(mixer, dataclasses.replace(layout, keep=1)):
        return
    params, x = init(mixer, case)

    def step(low, high, start, cache, keep):
        here = dataclasses.replace(
            layout,
            times=layout.times[low:high],
            coords=layout.coords[low:high],
            start=start,
            key_times=layout.times[: start + high - low],
            keep=keep,
        )
        return mixer.apply({"params": params}, x[:, low:high], here, cache)

    empty = mixer.init_cache(len(x), 0)
    _, kept = step(0, 3, 0, empty, 1)
    _, alone = step(0, 1, 0, empty, None)
    np.testing.assert_allclose(step(3, 5, 1, kept, None)[0], step(3, 5, 1, alone, None)[0], atol=1e-6)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("what", ["hidden", "union", "memory"])
def test_rows_that_are_hidden(name, what):
    """What nobody may look at changes nothing else, or is refused."""
    mixer, case = build(name)
    layout = case.layout
    n = len(layout.times)
    if what == "hidden":  # the second row, as padding is
        keys = np.where(np.arange(n) == 1, HIDDEN, layout.times)
        changed, looking = dataclasses.replace(layout, key_times=keys), np.arange(n) != 1
    elif what == "union":  # with a view of nothing
        none = np.full(n, -1)
        changed = dataclasses.replace(layout, views=(View(none, layout.times, 0),))
        looking = np.ones(n, bool)
    else:
        rows = jnp.ones((2, 3, 2, 4))
        changed = dataclasses.replace(layout, memory=Memory(rows, rows, np.zeros(3, np.int32)))
        looking = np.ones(n, bool)
    if not honours(mixer, changed):
        return
    params, x = init(mixer, case)
    other = x.at[:, 1].add(1.0)
    look = run(mixer, changed)
    first = look(params, x)
    if what == "hidden":
        np.testing.assert_allclose(first[:, looking], look(params, other)[:, looking], atol=1e-6)
    elif what == "union":
        np.testing.assert_allclose(first, run(mixer, layout)(params, x), atol=2e-5)
    else:  # a row looks at the memory alone
        rest = look(params, other)
        np.testing.assert_allclose(np.delete(first, 1, 1), np.delete(rest, 1, 1), atol=1e-6)


@pytest.mark.parametrize("name", MIXED)
def test_half_precision(name):
    """In bfloat16 the values are near, gradients are finite, and both stay what they were asked to be."""
    mixer, case = build(name)
    params, x = init(mixer, case)
    half = mixer.clone(dtype=jnp.bfloat16) if name != "chain" else None
    if half is None:
        common = dict(grid=case.grid, width=8, kernel_init=KERNEL_INIT, out_init=KERNEL_INIT)
        half = parts.build(MIXERS, dict(MIXED[name][1], name=name), "mixer", **common, dtype=jnp.bfloat16)

    @jax.jit
    def both(params, x):
        square = lambda p, x: jnp.sum(jnp.square(parallel(half, p, x, case.layout).astype(jnp.float32)))  # noqa: E731
        y = parallel(half, params, x.astype(jnp.bfloat16), case.layout)
        return y, parallel(mixer, params, x, case.layout), jax.grad(square)(params, x.astype(jnp.bfloat16))

    y, expected, gradient = both(params, x)
    assert y.dtype == jnp.bfloat16
    error = np.abs(np.asarray(y, np.float32) - expected).max() / np.abs(expected).max()
    assert error < 0.06
    for path, g in jax.tree_util.tree_leaves_with_path(gradient):
        assert g.dtype == jnp.float32 and np.isfinite(g).all() and np.any(g), jax.tree_util.keystr(path)
