"""Linear mixers against the authors' own code: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import Golden

from vargen.kernels.linear_attention import linear_attention
from vargen.layers import KERNEL_INIT
from vargen.layout import Layout
from vargen.mixers.gla import GLA
from vargen.mixers.lightnet import LightNet
from vargen.mixers.retention import log_decays
from vargen.mixers.ssd import SSD

# Ours: theirs (of a linear layer, transposed).
NAMES = {
    "gla": {
        "query/kernel": "q_proj.weight",
        "key/kernel": "k_proj.weight",
        "value/kernel": "v_proj.weight",
        "gate/kernel": "g_proj.weight",
        "decay_down/kernel": "gk_proj.0.weight",
        "decay_up/kernel": "gk_proj.1.weight",
        "decay_up/bias": "gk_proj.1.bias",
        "scale": "g_norm_swish_gate.weight",
        "out/kernel": "o_proj.weight",
    },
    "lightnet": {
        "query/kernel": "q_proj.weight",
        "key/kernel": "k_proj.weight",
        "value/kernel": "v_proj.weight",
        "gate_down/kernel": "g_proj.0.weight",
        "gate_up/kernel": "g_proj.1.weight",
        "norm/scale": "g_norm.weight",
        "out/kernel": "o_proj.weight",
    },
    "mamba2": {
        "dt_bias": "dt_bias",
        "a_log": "A_log",
        "skip": "D",
        "conv_bias": "conv1d.bias",
        "norm/scale": "norm.weight",
        "out/kernel": "out_proj.weight",
    },
}
COMMON = dict(width=8, kernel_init=KERNEL_INIT, out_init=KERNEL_INIT)
MIXERS = {
    "gla": GLA(heads=2, gate_rank=3, **COMMON),
    "lightnet": LightNet(heads=2, key_size=3, gate_rank=3, **COMMON),
    "mamba2": SSD(heads=4, state_size=3, groups=2, **COMMON),
}


def parameters(name, weights):
    """Our tree, from the authors' weights."""
    flat = {ours: weights[theirs] for ours, theirs in NAMES[name].items()}
    flat = {k: v.T if k.endswith("kernel") else v for k, v in flat.items()}
    if name == "mamba2":
        cuts = np.cumsum((16, 16, 6, 6))
        fused = np.split(weights["in_proj.weight"].T, cuts, axis=1)
        parts = ("gate", "value", "key", "query", "dt")
        flat |= {f"{n}/kernel": k for n, k in zip(parts, fused, strict=True)}
        flat["conv"] = weights["conv1d.weight"][:, 0].T
    tree = {}
    for key, value in flat.items():
        *path, last = key.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = jnp.asarray(value)
    return tree


@pytest.mark.parametrize("name", NAMES)
def test_layer(name):
    golden, mixer = Golden(name), MIXERS[name]
    layout = Layout(np.arange(9), np.zeros((9, 2), np.int32))

    def loss(params, x):
        y = mixer.apply({"params": params}, x, layout)[0]
        return jnp.sum(y * golden["in/cotangent"]), y

    params = parameters(name, golden.weights)
    (_, y), (grads, grad_x) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
        params, golden["in/x"]
    )
    np.testing.assert_allclose(y, golden["out/y"], atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(grad_x, golden["out/grad_x"], atol=5e-5, rtol=1e-5)
    norms = golden.gradient_norms()
    expected = {ours: norms[theirs] for ours, theirs in NAMES[name].items()}
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        key = "/".join(p.key for p in path)
        if key in expected:
            np.testing.assert_allclose(np.linalg.norm(grad), expected.pop(key), rtol=1e-4, err_msg=key)
    assert not expected


def check_gradients(found, expected):
    for name, grad in found.items():
        np.testing.assert_allclose(grad, expected[name], atol=3e-5, err_msg=name)


def test_gated_recurrence():
    golden = Golden("gla")
    names = ("q", "k", "v", "log_decay", "initial")

    def loss(inputs):
        q, k, v, log_decay, initial = (inputs[n] for n in names)
        o, state = linear_attention(q, k, v, log_decay, scale=0.5, initial=initial, return_state=True)
        return jnp.sum(o * golden["in/op_cotangent"]), (o, state)

    inputs = {n: jnp.asarray(golden[f"in/op_{n}"]) for n in names}
    (_, (o, state)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(inputs)
    np.testing.assert_allclose(o, golden["out/op_o"], atol=1e-5)
    np.testing.assert_allclose(state, golden["out/op_state"], atol=1e-5)
    check_gradients(grads, {n: golden[f"out/op_grad_{n}"] for n in names})


def test_retention():
    golden = Golden("retention")

    def loss(inputs):
        q, k, v = (jnp.swapaxes(inputs[n], 1, 2) for n in "qkv")
        o = jnp.swapaxes(linear_attention(q, k, v, log_decays(3), scale=0.5), 1, 2)
        return jnp.sum(o * golden["in/cotangent"]), o

    inputs = {n: jnp.asarray(golden[f"in/{n}"]) for n in "qkv"}
    (_, o), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(inputs)
    np.testing.assert_allclose(o, golden["out/o"], atol=1e-5)
    check_gradients(grads, {n: golden[f"out/grad_{n}"] for n in "qkv"})
