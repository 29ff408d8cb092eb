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
from vargen.weights import ready


def made(name, layers):
    """A system with skips: its generator, the parameters and the tokenizer's."""
    c = SYSTEMS[name]()
    c.model = c.model.to_dict() | dict(layers=layers, skips=True)
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    return generator, noisy(generator.init, 0), noisy(tokenizer.init, 1)


@pytest.mark.parametrize("layers", [3, 6, 7])
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
            join = {k: v[i - layers + skips].astype(np.float64) for k, v in params["blocks_skips"].items()}
            x = np.concatenate([x, seen[layers - 1 - i]], axis=-1) @ join["kernel"] + join["bias"]
        x = np.float64(stage.block.apply({"params": own}, jnp.float32(x), None, layout)[0])
        seen.append(x)
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["var", "llamagen", "mar"])
def test_cached_equals_uncached(name):
    """Of caches that grow, of stages that are split, and of two stages without a cache."""
    generator, params, tokenizer_params = made(name, 6)
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


def test_loops_and_recomputation_change_nothing():
    """Gradients of a loop, of layers unrolled, of blocks computed again, all with dropout; they reach every skip."""
    generator, params, _ = made("maskgit", 5)
    (stage,) = generator.stages
    content = jax.random.randint(jax.random.key(1), (2, 16), 0, 16)

    def gradient(**fields):
        own = dataclasses.replace(generator, stages=(dataclasses.replace(stage, **fields),))
        loss = lambda p: own.loss(p, None, content, jnp.array([1, 2]), jax.random.key(2))[0]  # noqa: E731
        return jax.jit(jax.grad(loss))(params)

    expected = gradient()
    assert all(np.all(np.any(x != 0, axis=-1)) for x in jax.tree.leaves(expected["blocks_skips"]))
    for fields in (dict(scanned=False), dict(remat="blocks"), dict(remat="products", scanned=False)):
        chex.assert_trees_all_close(gradient(**fields), expected, rtol=1e-4, atol=1e-6)


def test_split_and_whole_stages_give_the_same():
    generator, params, _ = made("maskgit", 5)
    content, order = (
        jnp.zeros((1, 16), jnp.int32),
        generator.ordering.training(jax.random.key(0), np.zeros((1, 16))),
    )
    run = jax.jit(lambda p: generator.hidden(p, None, content, jnp.array([1]), order)[0])
    split = ready(generator, params, "gpu")
    assert len(split["blocks"]) == 5 and len(split["blocks_skips"]) == 2
    np.testing.assert_allclose(run(split), run(params), rtol=1e-5, atol=1e-5)
