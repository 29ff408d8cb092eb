"""What every mixer must show of layouts that a feed may bring: it honours them, or refuses when the config is built.

One that is registered without a row in `harness.MIXED` fails here. Both forms, leaks and gradients:
`harness.check_mixer`; rows that are taken back: test_rollback.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import MIXED, build, init, parallel
from systems import some_slow

from vargen.layout import HIDDEN, Memory, View
from vargen.mixers import MIXERS


def honours(mixer, layout):
    try:
        mixer.check(layout)
    except ValueError as error:
        assert str(error).startswith("mixer ") and "\n" not in str(error)
        return False
    return True


def without_sequence(layout):
    """Rows in another sequence than that of their times and places, and which they are."""
    if layout.everyone:  # sees by places alone
        layout = dataclasses.replace(layout, times=np.zeros_like(layout.times))
    shuffled = np.random.default_rng(0).permutation(len(layout.times))
    return dataclasses.replace(layout, times=layout.times[shuffled], coords=layout.coords[shuffled]), shuffled


def hidden(layout):
    """The second row is seen by nobody, as padding is."""
    keys = np.where(np.arange(len(layout.times)) == 1, HIDDEN, layout.times)
    return dataclasses.replace(layout, key_times=keys)


def in_union(layout):
    """With a view of nothing."""
    none = np.full(len(layout.times), -1)
    return dataclasses.replace(layout, views=(View(none, layout.times, 0),))


def with_memory(layout):
    """Rows look at a memory of three rows instead of each other."""
    rows = jnp.ones((2, 3, 2, 4))
    return dataclasses.replace(layout, memory=Memory(rows, rows, np.zeros(3, np.int32)))


# What a feed may bring beside plain rows, and the mixers that honour it. All others must refuse.
HONOURED = {
    "out of sequence": (lambda layout: without_sequence(layout)[0], {"attention"}),
    "not kept": (lambda layout: dataclasses.replace(layout, keep=1), {"attention"}),
    "hidden": (hidden, {"attention"}),
    "union": (in_union, {"attention"}),
    "memory": (with_memory, {"attention"}),
}


def run(mixer, layout):
    return jax.jit(lambda params, x: parallel(mixer, params, x, layout))


def test_no_mixer_is_left_out():
    assert MIXED.keys() == MIXERS.keys()


@pytest.mark.parametrize("name", MIXED)
def test_what_is_refused(name):
    """When the config is built: what a mixer doesn't honour is never run."""
    mixer, case = build(name)
    for what, (change, who) in HONOURED.items():
        assert honours(mixer, change(case.layout)) == (name in who), what


def honouring(what):
    """For a test of what these do with it."""
    return pytest.mark.parametrize("name", sorted(HONOURED[what][1]))


@honouring("out of sequence")
def test_rows_out_of_sequence(name):
    """They give what they give in the sequence of their times."""
    mixer, case = build(name)
    unsorted, shuffled = without_sequence(case.layout)
    params, x = init(mixer, case)
    expected = run(mixer, case.layout)(params, x)[:, shuffled]
    np.testing.assert_allclose(run(mixer, unsorted)(params, x[:, shuffled]), expected, atol=2e-5)


@honouring("not kept")
def test_rows_that_do_not_stay(name):
    """A pass that keeps its first row alone leaves later ones as they are without the others."""
    mixer, case = build(name)
    layout = case.layout
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

    @jax.jit
    def both():
        empty = mixer.init_cache(len(x), 0)
        kept, alone = step(0, 3, 0, empty, 1)[1], step(0, 1, 0, empty, None)[1]
        return [step(3, 5, 1, cache, None)[0] for cache in (kept, alone)]

    np.testing.assert_allclose(*both(), atol=1e-6)


@honouring("hidden")
def test_rows_that_are_hidden(name):
    """What nobody may look at changes nothing but itself."""
    mixer, case = build(name)
    params, x = init(mixer, case)
    look = run(mixer, hidden(case.layout))
    first, rest = (np.delete(look(params, y), 1, 1) for y in (x, x.at[:, 1].add(1.0)))
    np.testing.assert_allclose(first, rest, atol=1e-6)
    plain = np.delete(run(mixer, case.layout)(params, x), 1, 1)
    assert np.abs(first - plain).max() > 1e-3  # which they saw before


@honouring("union")
def test_views_in_union(name):
    """One of nothing adds nothing."""
    mixer, case = build(name)
    params, x = init(mixer, case)
    found = run(mixer, in_union(case.layout))(params, x)
    np.testing.assert_allclose(found, run(mixer, case.layout)(params, x), atol=2e-5)


@honouring("memory")
def test_rows_that_look_at_a_memory(name):
    """They look at it alone."""
    mixer, case = build(name)
    params, x = init(mixer, case)
    look = run(mixer, with_memory(case.layout))
    first, rest = (np.delete(look(params, y), 1, 1) for y in (x, x.at[:, 1].add(1.0)))
    np.testing.assert_allclose(first, rest, atol=1e-6)


@pytest.mark.parametrize("name", some_slow(MIXED, "chain lightnet manhattan retention ssd ssm_2d".split()))
def test_half_precision(name):
    """In bfloat16 the values are near, gradients are finite, and both stay what they were asked to be."""
    mixer, case = build(name)
    params, x = init(mixer, case)
    half, _ = build(name, dtype=jnp.bfloat16)

    @jax.jit
    def both(params, x):
        def square(p):
            y = parallel(half, p, x.astype(jnp.bfloat16), case.layout)
            return jnp.sum(jnp.square(y.astype(jnp.float32))), y

        return *jax.grad(square, has_aux=True)(params), parallel(mixer, params, x, case.layout)

    gradient, y, expected = jax.tree.map(np.asarray, both(params, x))
    assert y.dtype == jnp.bfloat16
    error = np.abs(np.asarray(y, np.float32) - expected).max() / np.abs(expected).max()
    assert error < 0.06
    for path, g in jax.tree_util.tree_leaves_with_path(gradient):
        assert g.dtype == jnp.float32 and np.isfinite(g).all() and np.any(g), jax.tree_util.keystr(path)
