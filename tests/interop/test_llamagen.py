"""LlamaGen's transformer against the authors' outputs (float32, CPU)."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import Golden, tiny

from vargen import models
from vargen.config import part
from vargen.interop import llamagen
from vargen.samplers import Sampling, decode

TOLERANCE = 2e-5  # relative to the largest output


def build(name):
    golden = Golden(name)
    m = Golden("llamagen_gpt_c2i").meta | golden.meta
    config = tiny(
        tokenizer=part("vq", encoder=part("patch", patch=1, width=8, blocks=1), vocab=m["vocab"], channels=4),
        order=part("raster"),
        feed=part("shift"),
        mixer=part(
            "attention", heads=m["n_head"], kv_heads=m.get("n_kv_head", 0), rope="places", out_bias=False
        ),
        head=part("categorical", bias=False),
        model=dict(
            layers=m["n_layer"],
            width=m["dim"],
            mlp="swiglu",
            mlp_width=m["ffn_hidden"],
            norm="rms",
            eps=1e-5,
            bias=False,
        ),
        image_size=4,
    )
    generator = models.build_generator(config, models.build_tokenizer(config))
    return golden, generator, jax.tree.map(jnp.asarray, llamagen.from_torch(golden.weights, generator))


def logits_of(generator, params, codes, labels):
    order = generator.order.decoding(None, len(labels))
    hidden, _ = generator.hidden(params, None, codes, labels, order)
    return generator.head.apply({"params": params["head"]}, hidden)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("name", ["llamagen_gpt_c2i", "llamagen_gpt_gqa"])
def test_logits_loss_and_gradients(name):
    golden, generator, params = build(name)
    codes, labels = jnp.asarray(golden["in/idx"]), jnp.asarray(golden["in/label"])

    def loss(params):
        logits = logits_of(generator, params, codes, labels)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), codes[..., None], axis=-1)
        return -jnp.mean(picked), logits

    (found, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    close(logits, golden["out/logits"])
    np.testing.assert_allclose(found, golden["out/loss"], rtol=1e-5)
    nats = -generator.log_likelihood(params, None, codes, labels)
    np.testing.assert_allclose(nats.mean() / codes.shape[1], golden["out/loss"], rtol=1e-5)
    for i in range(generator.layers if golden.gradient_norms() else 0):
        expected = golden.gradient_norms()[f"layers.{i}.feed_forward.w3.weight"]
        found = jnp.linalg.norm(gradient["blocks"]["feed_forward"]["up"]["kernel"][i])
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_greedy_decoding_is_exact():
    golden, generator, params = build("llamagen_gpt_c2i")
    labels = jnp.asarray(golden["in/label"])
    null = logits_of(generator, params, jnp.asarray(golden["in/idx"]), jnp.full_like(labels, 10))
    close(null, golden["out/logits_null"])
    greedy = jax.jit(functools.partial(decode, generator))
    for name, options in (
        ("cfg1.0", dict(guidance=1.0)),
        ("cfg2.0", dict(guidance=2.0)),
        # Their interval counts after the first token, which always has guidance.
        ("cfg4.0_interval5", dict(guidance=4.0, guidance_steps=7)),
        ("cfg2.0_T0.5", dict(guidance=2.0)),
    ):
        sampling = Sampling.make(temperature=0.0, **options)
        codes, _ = greedy(params, None, labels, jax.random.key(0), sampling)
        chex.assert_trees_all_equal(np.asarray(codes), golden[f"out/greedy/{name}"].astype(np.int32))
