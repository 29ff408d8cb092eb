"""Layers of which the backward pass keeps the inputs alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen.layers import GATED, INNER, Dense, Dropout, Mlp, Norm

RNG = np.random.default_rng(0)


def normalized(kind, x, own, scale, shift, eps=1e-6):
    """The definition, float64."""
    y = x - x.mean(-1, keepdims=True) if kind == "layer" else x
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + eps) * own["scale"] + own.get("bias", 0)
    return y * (1 + scale) + shift


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norm_and_its_gradient(kind):
    """Against differences of the definition in float64: of the input, the parameters and the modulations."""
    args = dict(
        x=RNG.normal(size=(2, 3, 8)) + 1,
        own={n: RNG.normal(size=8) for n in ("scale", "bias")[: 1 + (kind == "layer")]},
        scale=RNG.normal(size=(2, 1, 8)),
        shift=RNG.normal(size=(2, 3, 8)),
    )
    weights = RNG.normal(size=(2, 3, 8))
    exact = lambda t: np.sum(weights * normalized(kind, **t))  # noqa: E731

    def ours(t):
        return jnp.sum(weights * Norm(kind).apply({"params": t["own"]}, t["x"], t["scale"], t["shift"]))

    value, gradient = jax.value_and_grad(ours)(jax.tree.map(jnp.float32, args))
    np.testing.assert_allclose(value, exact(args), rtol=1e-5, atol=1e-5)
    leaves, tree = jax.tree.flatten(args)
    for i, found in enumerate(jax.tree.leaves(gradient)):
        for at in np.ndindex(leaves[i].shape):
            moved = [leaves[:i] + [leaves[i].copy()] + leaves[i + 1 :] for _ in range(2)]
            for step, copy in zip((1e-6, -1e-6), moved):
                copy[i][at] += step
            ahead, behind = (exact(jax.tree.unflatten(tree, m)) for m in moved)
            np.testing.assert_allclose(found[at], (ahead - behind) / 2e-6, rtol=1e-3, atol=1e-4)


def kept(function, *args):
    """Shapes and dtypes of what `function` keeps of arrays for its backward pass, the largest first."""
    pull = jax.eval_shape(lambda *a: jax.vjp(function, *a)[1], *args)
    return sorted(((x.dtype.name, x.shape) for x in jax.tree.leaves(pull)), key=lambda s: -np.prod(s[1]))


X = jax.ShapeDtypeStruct((4, 16, 8), jnp.bfloat16)
ROW = jax.ShapeDtypeStruct((4, 1, 8), jnp.bfloat16)


def test_norms_keep_no_float32():
    """Of a modulated norm in bfloat16 its input and the modulations as they came, but for its own parameters."""
    own = jax.eval_shape(Norm().init, jax.random.key(0), X)["params"]
    found = kept(lambda own, x, s, t: Norm().apply({"params": own}, x, s, t), own, X, ROW, ROW)
    assert found[0] == ("bfloat16", X.shape) and ("bfloat16", ROW.shape) in found
    assert all(np.prod(shape) <= np.prod(ROW.shape) for _, shape in found[1:]), found


@pytest.mark.parametrize("name", [*INNER, *GATED])
def test_activations_keep_their_inputs(name):
    function, count = (INNER[name], 1) if name in INNER else (GATED[name], 2)
    assert kept(function, *[X] * count) == [("bfloat16", X.shape)] * count


@pytest.mark.parametrize("name", ["gelu", "swiglu"])
def test_position_wise_networks(name):
    """x, what each product gave, and what the last one takes."""
    init = jax.nn.initializers.normal(0.1)
    mlp = Mlp(32, name, init, init, dtype=jnp.bfloat16)
    params = jax.eval_shape(mlp.init, jax.random.key(0), X)
    large = [s for s in kept(lambda x, p: mlp.apply(p, x), X, params) if s[1][:-1] == X.shape[:-1]]
    hidden = [("bfloat16", (4, 16, 32))] * (2 if name == "gelu" else 3)
    assert sorted(large) == sorted([*hidden, ("bfloat16", X.shape)])


def test_products_over_several_axes():
    """Over heads and their channels at once as over both flattened."""
    layer = Dense(5, ("heads", "embed"), axes=2)
    x = jnp.asarray(RNG.normal(size=(2, 3, 4, 2)), jnp.float32)
    params = layer.init(jax.random.key(0), x)
    kernel = params["params"]["kernel"]
    assert kernel.value.shape == (8, 5)
    np.testing.assert_allclose(layer.apply(params, x), x.reshape(2, 3, 8) @ kernel.value, rtol=1e-5)


def test_dropout():
    """At a rate of a quarter about that many are zero, the others a third larger; none outside of training."""
    x, rngs = jnp.ones((100, 100)), {"dropout": jax.random.key(0)}
    y = Dropout(0.25).apply({}, x, True, rngs=rngs)
    assert abs(np.mean(y == 0) - 0.25) < 0.02
    np.testing.assert_allclose(y[y != 0], 4 / 3, rtol=1e-6)
    assert Dropout(0.25).apply({}, x, False) is x and Dropout(0.0).apply({}, x, True) is x
