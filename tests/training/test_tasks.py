"""The two tasks on real parts, tiny: the adversarial game, and what a generator learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import make

from vargen import sharding
from vargen.models import build_tokenizer
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import GeneratorTask, TokenizerTask


def images(config, count=8):
    size, channels = config.data.image_size, config.data.channels
    return np.random.default_rng(0).uniform(-1, 1, (count, size, size, channels)).astype(np.float32)


def test_adversarial_tokenizer():
    """The discriminator waits for its start; then both sides learn. The adaptive weight and accumulation are on."""
    config = make("var")[0]
    s = config.tokenizer_training
    s.update(dict(warmup_steps=0, batch_size=8, accumulate=2))
    s.losses.update(dict(adversarial=0.5, adversarial_start=2, adaptive=True, perceptual=0.3))
    s.losses.update(dict(discriminator_layers=1, discriminator_width=4, discriminator_learning_rate=1e-2))
    task = TokenizerTask(
        build_tokenizer(config), s, lambda params, x, y: params * jnp.mean((x - y) ** 2, (1, 2, 3))
    )
    mesh = sharding.make_mesh()
    now = state.create(task, optimizer.build(s, ["model", "discriminator"]), mesh, jax.random.key(0))
    step = make_step(task, s, mesh)
    batch = sharding.put_batch(dict(image=images(config)), mesh)
    history, judges = [], [jax.tree.map(np.array, now.params["discriminator"])]
    for _ in range(6):
        now, metrics = step(now, dict(perceptual=jnp.float32(2.0)), batch, jax.random.key(1))
        history.append(jax.device_get(metrics))
        judges.append(jax.tree.map(np.array, now.params["discriminator"]))
    assert all(row["finite"] for row in history)
    assert {"adaptive_weight", "adversarial", "discriminator_loss", "perceptual", "codebook_use"} <= set(
        history[0]
    )
    np.testing.assert_allclose([row["perceptual"] / row["l2"] for row in history], 2.0, rtol=1e-4)
    assert history[0]["discriminator_grad_norm"] == 0 < history[2]["discriminator_grad_norm"]
    kernels = [judge["conv0"]["kernel"] for judge in judges]
    assert np.abs(kernels[3] - kernels[2]).max() > 1e-3
    assert history[5]["discriminator_loss"] < history[2]["discriminator_loss"]
    assert int(now.stats["updates"]) == 12


@pytest.mark.parametrize("name", ["var", "mar", "rqtransformer"])
def test_a_generator_learns_the_same_from_images_and_from_stored_content(name):
    config, generator, params, tokenizer_params = make(name)
    tokenizer = generator.tokenizer
    task = GeneratorTask(generator, tokenizer)
    image, label = jnp.asarray(images(config, 4)), jnp.arange(4, dtype=jnp.int32)
    key = jax.random.key(3)
    latents = tokenizer.slot.kind == "latents"

    @jax.jit
    def losses(params, frozen):
        def loss(frozen, **content):
            batch = dict(content, label=label)
            return task.loss(dict(model=params), {}, frozen, batch, key, jnp.int32(0))[0]

        stored = tokenizer.stored(frozen, image)
        sampled = tokenizer.encode(frozen, image, jax.random.split(key)[0]) if latents else stored
        quantizer = dict(quantizer=frozen["quantizer"])
        return loss(frozen, image=image), loss(quantizer, content=stored), loss(quantizer, content=sampled)

    on_the_fly, stored, given = losses(params, tokenizer_params)
    assert np.isfinite(on_the_fly)
    np.testing.assert_allclose([stored, given], on_the_fly, rtol=1e-5)


def test_a_generator_learns_the_probabilities_of_codes():
    """Codes are drawn anew by each key, and the loss is the cross-entropy with what they were drawn by."""
    config, generator, params, tokenizer_params = make("rqtransformer")
    tokenizer = generator.tokenizer
    task = GeneratorTask(generator, tokenizer)
    image, label = jnp.asarray(images(config, 2)), jnp.arange(2, dtype=jnp.int32)

    @jax.jit
    def run(params, frozen, key):
        batch = dict(image=image, label=label)
        loss = task.loss(dict(model=params), {}, frozen, batch, key, jnp.int32(0))[0]
        content, soft = task.content(frozen, batch, jax.random.split(key)[0])
        args = (params, frozen["quantizer"], content, label, jax.random.split(key)[1])
        return content, soft, loss, generator.loss(*args, soft=soft)[0], generator.loss(*args)[0]

    content, soft, loss, same, hard = run(params, tokenizer_params, jax.random.key(0))
    np.testing.assert_allclose(soft.sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(loss, same, rtol=1e-6)
    assert abs(loss - hard) > 1e-3
    other = run(params, tokenizer_params, jax.random.key(1))[0]
    assert content.shape == (2, 16, 2) and not np.array_equal(other, content)
