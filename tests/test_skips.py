"""Blocks that take what earlier ones gave too (U-ViT, arXiv 2209.12152, section 3), in any generator."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import noisy
from systems import SYSTEMS, labels_for
from uncached import uncached

from vargen import models
from vargen.samplers import Sampling, decode


def made(name, layers):
    """A system with skips: its generator, the parameters and the tokenizer's."""
    c = SYSTEMS[name]()
    c.model = c.model.to_dict() | dict(layers=layers, skips=True)
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    return generator, noisy(generator.init, 0), noisy(tokenizer.init, 1)


@pytest.mark.parametrize("layers", [pytest.param(6, marks=pytest.mark.slow), 7])
def test_by_the_definition(layers):
    """Of L blocks number L - 1 - j takes what number j gave beside what the one before it gives; in float64 between."""
    generator, params, _ = made("maskgit", layers)
    (stage,) = generator.stages
    (layout,) = generator.layouts()
    x = np.random.default_rng(0).normal(size=(2, len(layout.times), stage.block.width)).astype(np.float32)
    found, _ = stage(params, jnp.asarray(x), layout, None, None)
    seen, skips = [], (layers - 1) // 2
    for i in range(layers):
        own = jax.tree.map(lambda p, i=i: p[i], params["blocks"])
        if i >= layers - skips:
            join = {
                k: np.asarray(v[i - layers + skips], np.float64) for k, v in params["blocks_skips"].items()
            }
            x = np.concatenate([x, seen[layers - 1 - i]], axis=-1) @ join["kernel"] + join["bias"]
        x = np.float64(stage.block.apply({"params": own}, jnp.float32(x), None, layout)[0])
        seen.append(x)
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [pytest.param("var", marks=pytest.mark.slow), "llamagen"])
def test_cached_equals_uncached(name):
    """Of caches that grow in a loop over the layers, and of layers one by one."""
    generator, params, tokenizer_params = made(name, 3)
    sampling = Sampling.make(guidance=2.0)
    args = (
        params,
        tokenizer_params["quantizer"],
        labels_for(generator, 2),
        jax.random.key(5),
        sampling,
    )
    found, *_ = jax.jit(functools.partial(decode, generator))(*args)
    chex.assert_trees_all_close(found, uncached(generator, *args), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_loops_and_recomputation_change_nothing():
    """Gradients of a loop, and of layers unrolled and computed again, both with dropout; they reach every skip."""
    generator, params, _ = made("maskgit", 5)
    (stage,) = generator.stages
    (layout,) = generator.layouts()
    x = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, len(layout.times), stage.block.width)), jnp.float32
    )

    def gradient(**fields):
        own = dataclasses.replace(stage, **fields)
        loss = lambda p: jnp.sum(own(p, x, layout, None, None, key=jax.random.key(2))[0] * x)  # noqa: E731
        return jax.jit(jax.grad(loss))({name: params[name] for name in ("blocks", "blocks_skips")})

    expected = gradient()
    assert all(np.all(np.any(x != 0, axis=-1)) for x in jax.tree.leaves(expected["blocks_skips"]))
    found = gradient(scanned=False, remat="products")
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-4)
