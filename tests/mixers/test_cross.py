"""Cross-attention against a dense formula in float64, and what a model with it looks at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from systems import labels_for, llamagen_memory, make

from vargen import models
from vargen.errors import UserError
from vargen.layers import Initial
from vargen.mixers.cross import CrossAttention


def test_dense():
    init = Initial(0.5).kernel()
    module = CrossAttention(8, 2, init, init)
    rng = np.random.default_rng(0)
    x, memory = (rng.normal(size=(2, n, 8)).astype(np.float32) for n in (5, 4))
    hidden = np.array([[True, False, False, False], [False, False, True, True]])

    @jax.jit
    def run(x, memory, hidden):
        params = meta.unbox(module.init(jax.random.key(2), x, memory)["params"])
        return params, module.apply({"params": params}, x, memory, hidden)

    params, found = run(x, memory, hidden)
    w = {name: np.asarray(p["kernel"], np.float64) for name, p in params.items()}
    q, k, v = (
        np.asarray(a, np.float64) @ w[n] for a, n in ((x, "query"), (memory, "key"), (memory, "value"))
    )
    mixed = np.zeros((2, 5, 8))
    for b in range(2):
        seen = ~hidden[b]
        for h in (slice(0, 4), slice(4, 8)):
            logits = q[b, :, h] @ k[b, seen, h].T / 2
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            mixed[b, :, h] = weights / weights.sum(axis=1, keepdims=True) @ v[b, seen, h]
    np.testing.assert_allclose(found, mixed @ w["out"], atol=1e-5)


def test_a_caption_is_looked_at_by_every_row_and_its_padding_by_none():
    _, generator, params, _ = make("llamagen_memory")
    captions = labels_for(generator, 3)[1:]  # "a", "a b"
    order, content = generator.ordering.training(None, None), np.arange(32).reshape(2, 16) % 16
    hidden = jax.jit(lambda p, c: generator.hidden(p, None, content, c, order)[0])
    expected = np.asarray(hidden(params, captions))
    other = np.asarray(hidden(params, jnp.asarray(generator.condition.parse(["b", "a b"]))))
    assert np.all(np.any(np.abs(expected[0] - other[0]) > 1e-3, axis=-1))
    np.testing.assert_allclose(expected[1], other[1], atol=1e-6)
    words = np.array(params["condition"]["words"]["table"])
    words[0] += 9.0
    padded = dict(params, condition=dict(params["condition"], words=dict(table=words)))
    np.testing.assert_allclose(hidden(padded, captions), expected, atol=1e-6)


def test_mistakes():
    c = llamagen_memory()
    c.mixer.heads, c.mixer.kv_heads = 3, 3
    with pytest.raises(UserError, match="mixer.heads: expected a divisor of the width 16, found 3"):
        models.build_generator(c, models.build_tokenizer(c))
