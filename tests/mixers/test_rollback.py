"""Rows of which some are taken back, at places that differ per example: nothing of them stays behind."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import CASES, MIXED, build, init, parallel

from vargen.mixers import MIXERS
from vargen.mixers.rollback import mix, rollback

CASE, ROWS = CASES["raster"], 4
# How many rows of each pass are kept, for both examples: 12 in all.
KEPT = np.array([[2, 4], [1, 1], [4, 1], [1, 4], [3, 1], [1, 1]])
BY_PLACES, BY_SEQUENCE = dict(heads=2, rope="places"), dict(heads=2, rope="sequence", window=3)
ATTENTION = [dict(options, name="attention") for options in (BY_PLACES, BY_SEQUENCE)]
# Name -> options, each with which rows are taken back; None: those of `MIXED`. All others refuse.
TAKEN_BACK = dict(
    attention=[BY_PLACES, BY_SEQUENCE],
    chain=[dict(mixers=ATTENTION), dict(mixers=[ATTENTION[0], dict(name="gla", heads=2)])],
    gla=[None],
    lightnet=[None],
    linear=[None],
    mamba=[dict(state=3, conv_width=3)],
    retention=[None],
    s5=[None],
    ssd=[None],
    vssd=[None],
)


@pytest.mark.parametrize("name, options", [(name, each) for name in TAKEN_BACK for each in TAKEN_BACK[name]])
def test_rows_are_taken_back(name, options):
    mixer, case = build(name, options)
    assert case is CASE
    mixer.check(dataclasses.replace(CASE.layout, speculative=True))
    params, x = init(mixer, CASE)
    expected = np.asarray(jax.jit(lambda p, x: parallel(mixer, p, x, CASE.layout))(params, x))
    n = x.shape[1]

    @jax.jit
    def run(cache, rows, start, kept):
        at = jnp.minimum(start[:, None] + np.arange(ROWS), n - 1)
        times, coords = (jnp.asarray(a)[at] for a in (CASE.layout.times, CASE.layout.coords))
        layout = dataclasses.replace(
            CASE.layout,
            times=times,
            coords=coords,
            start=start,
            key_times=CASE.layout.times,
            speculative=True,
        )
        y, cache = nn.apply(mix, mixer)({"params": params}, rows, layout, cache)
        return y, rollback(mixer, cache, kept)

    cache, start, rng = mixer.init_cache(len(x), n), np.zeros(2, int), np.random.default_rng(0)
    found = np.zeros_like(expected)
    for kept in KEPT:
        rows = rng.normal(size=(2, ROWS, x.shape[-1])).astype(np.float32)
        for b, (first, count) in enumerate(zip(start, kept, strict=True)):
            rows[b, :count] = x[b, first : first + count]
        y, cache = run(cache, jnp.asarray(rows), jnp.asarray(start), jnp.asarray(kept))
        for b, (first, count) in enumerate(zip(start, kept, strict=True)):
            found[b, first : first + count] = y[b, :count]
        start = start + kept
    assert (start == n).all()
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", sorted(MIXERS.keys() - TAKEN_BACK.keys()))
def test_mixers_that_cannot(name):
    mixer, case = build(name)
    with pytest.raises(ValueError, match=rf"mixer {name}: expected rows at places that are the same for all"):
        mixer.check(dataclasses.replace(case.layout, speculative=True))


def test_a_chain_takes_back_what_all_of_it_do():
    mixer, case = build("chain", dict(mixers=[dict(MIXED["ssm_2d"][1], name="ssm_2d"), ATTENTION[0]]))
    with pytest.raises(ValueError, match="mixer ssm_2d: expected rows at places that are the same for all"):
        mixer.check(dataclasses.replace(case.layout, speculative=True))
