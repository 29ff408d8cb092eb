"""Parameters made ready for decoding: converted once, split, held in 8 bits."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from systems import SYSTEMS, labels_for, make, some_slow

from vargen import models
from vargen.errors import UserError
from vargen.layers import SCALE, Dense
from vargen.model import Model
from vargen.samplers import Sampling, decode
from vargen.weights import Weights, dtypes, eight_bits, ready

MOVES = {"reshape", "transpose", "squeeze", "slice", "dynamic_slice", "gather", "broadcast_in_dim", "copy"}


def other_uses(jaxpr, watched):
    """(name, primitive) of each use of variables, a dict to (name, dtype), but conversions to their dtype."""
    watched, found = dict(watched), []
    for eqn in jaxpr.eqns:
        at = {i: watched[v] for i, v in enumerate(eqn.invars) if isinstance(v, core.Var) and v in watched}
        if not at:
            continue
        inner = [x for v in eqn.params.values() for x in (v if isinstance(v, (list, tuple)) else [v])]
        inner = [getattr(x, "jaxpr", x) for x in inner if isinstance(x, (core.Jaxpr, core.ClosedJaxpr))]
        if inner:
            for sub in inner:
                skipped = len(eqn.invars) - len(sub.invars)  # a branch's number
                found += other_uses(sub, {sub.invars[i - skipped]: x for i, x in at.items() if i >= skipped})
        elif eqn.primitive.name in MOVES:
            watched |= {v: next(iter(at.values())) for v in eqn.outvars}
        elif eqn.primitive.name == "convert_element_type":
            found += [
                (n, f"to {eqn.params['new_dtype']}") for n, t in at.values() if eqn.params["new_dtype"] != t
            ]
        else:
            found += [(name, eqn.primitive.name) for name, _ in at.values()]
    return found


OFTEN = "var llamagen rar mar maskgit acdit rqtransformer gla_chain".split()  # all kinds of parts, nearly


@pytest.mark.parametrize("name", some_slow(SYSTEMS, SYSTEMS.keys() - {*OFTEN}))
def test_what_is_converted_once_is_used_in_no_other_dtype(name):
    """So that passes give the same to the last bit, by every use in the loss; only the trace is looked at."""
    c = SYSTEMS[name]()
    c.compute_dtype = "bfloat16"
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    key = jax.random.key(0)
    params, quantizer = (
        jax.eval_shape(f, key) for f in (generator.init, lambda k: tokenizer.init(k)["quantizer"])
    )
    content, labels = tokenizer.slot.zeros(2, tokenizer.grid.size), labels_for(generator, 2)
    trace = jax.make_jaxpr(lambda p, q, k: generator.loss(p, q, content, labels, k)[0])(
        params, quantizer, key
    )
    wanted = jax.tree.leaves(dtypes(generator))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    watched = {
        v: (jax.tree_util.keystr(path), dtype)
        for v, (path, leaf), dtype in zip(trace.jaxpr.invars, leaves, wanted, strict=False)
        if dtype != leaf.dtype
    }
    assert len(watched) > 5
    assert other_uses(trace.jaxpr, watched) == []


def test_ready_once_and_for_all():
    """Twice is once; the device holds one copy; another compute dtype is made of what was given."""
    config, generator, params, tokenizer_params = make("llamagen")
    once = ready(generator, params)
    chex.assert_trees_all_equal(ready(generator, once), once)
    assert isinstance(once["blocks"], list)
    config.compute_dtype = "bfloat16"
    model = Model(config, tokenizer_params, params)
    kernel = model._ready["blocks"][0]["feed_forward"]["up"]["kernel"]
    assert kernel.dtype == jnp.bfloat16 and model._ready is model._ready
    given = model.generator_params["blocks"]["feed_forward"]["up"]["kernel"]
    assert isinstance(given, np.ndarray) and given.dtype == np.float32
    again = model.with_config(at_dtype(config, "float32"))
    assert again._ready["blocks"][0]["feed_forward"]["up"]["kernel"].dtype == jnp.float32
    np.testing.assert_array_equal(again._ready["blocks"][1]["feed_forward"]["up"]["kernel"], given[1])


# Of feeds whose steps aren't loops: caches for all rows or for none, and two stages.
@pytest.mark.parametrize(
    "name",
    some_slow(
        ["var", "flexvar", "hmar", "hmar_masked", "flowar"], ["flexvar", "hmar", "hmar_masked", "flowar"]
    ),
)
def test_layers_one_by_one(name):
    """As GPUs take them: split, with caches written in place, the same contents as from stacks whose caches grow."""
    _, generator, params, tokenizer_params = make(name)
    split = ready(generator, params, "gpu")
    stages = [stage.name for stage in generator.stages]
    assert all(isinstance(split[s], list) and not isinstance(params[s], list) for s in stages)
    cache = jax.eval_shape(lambda: generator.init_cache(split, 2))
    assert {x.shape[1] for s in stages for x in jax.tree.leaves(cache[s])} == {generator.feed.length}
    labels, key, settings = labels_for(generator, 2), jax.random.key(0), Sampling.make(guidance=2.0)
    run = jax.jit(
        lambda p: decode(generator, p, tokenizer_params["quantizer"], labels, key, settings).content
    )
    chex.assert_trees_all_close(run(split), run(params), atol=1e-5)


def at_dtype(config, dtype):
    config = config.copy_and_resolve_references()
    config.compute_dtype = dtype
    return config


@pytest.mark.parametrize("form, tolerance", [("int8", 0.5 / 127), ("float8", 2.0**-4)])
def test_dense_layers_of_eight_bits(form, tolerance):
    """Each weight within half a step of its output's largest (float8: 3 bits of its own); products by that sum."""
    x, layer = jax.random.normal(jax.random.key(0), (5, 32)), Dense(24, ("embed", "mlp"))
    boxes = layer.init(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda x: x, {k: v.value for k, v in boxes.items()})
    params["kernel"] = params["kernel"].at[:, 3].set(0.0)  # an output that is always 0
    params["bias"] = params["bias"] + 0.1
    held = eight_bits(params, boxes, form)
    assert held["kernel"].dtype.itemsize == 1 and held[SCALE].shape == (24,)
    weights = held["kernel"].astype(jnp.float32) * held[SCALE]
    of = jnp.abs(params["kernel"]) if form == "float8" else jnp.max(jnp.abs(params["kernel"]), axis=0)
    # The smallest numbers of float8 are farther apart than 3 bits.
    assert np.all(np.abs(weights - params["kernel"]) <= tolerance * of * 1.001 + 1e-4)
    found = layer.apply({"params": held}, x)
    np.testing.assert_allclose(found, x @ weights + params["bias"], atol=1e-5)


@pytest.mark.parametrize("form", ["int8", pytest.param("float8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["llamagen", pytest.param("var", marks=pytest.mark.slow)])
def test_models_of_eight_bits(name, form):
    """Likelihoods stay near, of a split stage and a stacked one: 2 % (float8 5 %) of a nat a code; and it samples."""
    config, _, params, tokenizer_params = make(name)
    model, held = (Model(config, tokenizer_params, Weights(params, f)) for f in ("full", form))
    n = model.tokenizer.grid.size
    codes = jax.random.randint(jax.random.key(2), (2, n), 0, model.tokenizer.slot.vocab)
    full, eight = (m.log_likelihood(codes, [1, 2]) / n for m in (model, held))
    np.testing.assert_allclose(eight, full, atol=0.02 if form == "int8" else 0.05)
    assert not np.array_equal(eight, full) and held.weights == form
    assert held.generate([1], 0)[0].shape == (1, n)


def test_mistakes():
    with pytest.raises(UserError, match="weights: expected full, int8, float8, found 'int4'"):
        Weights({}, "int4")
