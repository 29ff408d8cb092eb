"""Pieces of the float64 formulas that mixers are held against."""

import jax
import numpy as np


def double(tree):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def dense(layer, x):
    return x @ layer["kernel"] + layer.get("bias", 0.0)


def heads(layer, x, number=2):
    y = dense(layer, x)
    return y.reshape(*y.shape[:-1], number, -1)


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def merge(y):
    return y.reshape(*y.shape[:2], -1)


def decayed(q, k, v, decay):
    """Row by row; decay [B, N, H, K]."""
    state, out = 0.0, []
    for n in range(q.shape[1]):
        state = decay[:, n, :, :, None] * state + k[:, n, :, :, None] * v[:, n, :, None]
        out.append(np.einsum("bhk,bhkv->bhv", q[:, n], state))
    return np.stack(out, axis=1) / np.sqrt(q.shape[-1])
