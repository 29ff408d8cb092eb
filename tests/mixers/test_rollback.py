"""Windows of rows of which some are taken back, at places that differ per example: nothing of them stays behind."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import CASES, init, make, parallel

from vargen.mixers.attention import Attention
from vargen.mixers.axial import Axial
from vargen.mixers.gla import GLA
from vargen.mixers.lightnet import LightNet
from vargen.mixers.linear import LinearAttention
from vargen.mixers.mamba import Mamba
from vargen.mixers.mamba_2d import Mamba2D
from vargen.mixers.retention import Retention
from vargen.mixers.rollback import mix, rollback
from vargen.mixers.s5 import S5
from vargen.mixers.ssd import SSD, VSSD
from vargen.mixers.ssm_2d import SSM2D

CASE, WINDOW = CASES["raster"], 4
# How many rows of each pass are kept, for both examples: 12 in all.
KEPT = np.array([[2, 4], [1, 1], [4, 1], [1, 4], [3, 1], [1, 1]])
MIXERS = dict(
    attention=(Attention, dict(heads=2, rope="places")),
    attention_sequence=(Attention, dict(heads=2, rope="sequence", window=3)),
    linear=(LinearAttention, dict(heads=2)),
    gla=(GLA, dict(heads=2)),
    retention=(Retention, dict(heads=2)),
    lightnet=(LightNet, dict(heads=2)),
    ssd=(SSD, dict(heads=2, state_size=4)),
    vssd=(VSSD, dict(heads=2, state_size=4)),
    mamba=(Mamba, dict(state=3, conv_width=3)),
    s5=(S5, dict(state=4)),
)


@pytest.mark.parametrize("name", MIXERS)
def test_rows_are_taken_back(name):
    mixer_class, options = MIXERS[name]
    mixer = make(mixer_class, CASE, **options)
    mixer.check(dataclasses.replace(CASE.layout, speculative=True))
    params, x = init(mixer, CASE)
    expected = np.asarray(jax.jit(lambda p, x: parallel(mixer, p, x, CASE.layout))(params, x))
    n = x.shape[1]

    @jax.jit
    def run(cache, rows, start, kept):
        at = jnp.minimum(start[:, None] + np.arange(WINDOW), n - 1)
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
        rows = rng.normal(size=(2, WINDOW, x.shape[-1])).astype(np.float32)
        for b, (first, count) in enumerate(zip(start, kept, strict=True)):
            rows[b, :count] = x[b, first : first + count]
        y, cache = run(cache, jnp.asarray(rows), jnp.asarray(start), jnp.asarray(kept))
        for b, (first, count) in enumerate(zip(start, kept, strict=True)):
            found[b, first : first + count] = y[b, :count]
        start = start + kept
    assert (start == n).all()
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("mixer_class, options", [(Axial, dict(heads=2)), (SSM2D, {}), (Mamba2D, {})])
def test_mixers_that_cannot(mixer_class, options):
    mixer = make(mixer_class, CASE, **options)
    with pytest.raises(ValueError, match=r"mixer \w+: expected rows at places that are the same for all"):
        mixer.check(dataclasses.replace(CASE.layout, speculative=True))
