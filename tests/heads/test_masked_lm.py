"""The head that shares the table of its words."""

import jax
import jax.numpy as jnp
import numpy as np
from parameters import normal
from systems import make

from vargen.draws import keyed
from vargen.samplers import Sampling


def test_against_the_formula():
    """Logits of all words in float64; codes alone have a probability, and are drawn by it."""
    _, generator, params, _ = make("maskgit")
    head, variables = generator.head, generator.of_head(params)
    hidden = normal(0, 1, 2, 16)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    words = [p["feed"]["content"]["codes"]["table"], p["condition"]["classes"]["table"], p["feed"]["mask"]]
    x = np.asarray(hidden, np.float64) @ p["head"]["dense"]["kernel"] + p["head"]["dense"]["bias"]
    x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    x = x * p["head"]["norm"]["scale"] + p["head"]["norm"]["bias"]
    logits = x @ np.concatenate(words).T
    logits += np.concatenate([p["head"][f"{name}_bias"] for name in ("code", "class", "mask")])

    @jax.jit
    def run(variables):
        many = jnp.broadcast_to(hidden[:, :1], (1, 4000, 16))
        args = (many, keyed(jax.random.key(1), 1, 4000), None, Sampling.make())
        given = [head.apply(variables, hidden, jnp.full((1, 2), k), method="log_prob") for k in (0, 15)]
        return head.apply(variables, hidden), given, head.apply(variables, *args, method="sample")

    found, both, drawn = jax.device_get(run(variables))
    assert found.shape == (1, 2, 16 + 11 + 1)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4)
    codes = logits[..., :16] - np.log(np.exp(logits[..., :16]).sum(-1, keepdims=True))
    for k, given in zip((0, 15), both, strict=True):
        np.testing.assert_allclose(given, codes[..., k], rtol=1e-4, atol=1e-4)
    shares = np.bincount(drawn.content[0], minlength=16) / 4000
    np.testing.assert_allclose(shares, np.exp(codes[0, 0]), atol=0.03)
    np.testing.assert_allclose(drawn.score[0], codes[0, 0][drawn.content[0]], rtol=1e-3, atol=1e-3)


def test_words_that_are_never_drawn_learn():
    """A class that is nobody's label, and nobody's code, gets a gradient through the loss's softmax."""
    _, generator, params, _ = make("maskgit")
    content = jnp.asarray(np.random.default_rng(1).integers(0, 16, (2, 16)), jnp.int32)
    args = (None, content, jnp.array([1, 2]), jax.random.key(0))
    table = params["condition"]["classes"]

    @jax.jit
    @jax.grad
    def gradient(table):
        condition = params["condition"] | {"classes": table}
        return generator.loss(params | {"condition": condition}, *args, train=False)[0]

    assert (np.abs(gradient(table)["table"]).sum(axis=1) > 0).all()
