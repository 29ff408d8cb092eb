"""The two tasks on real parts, tiny: the adversarial game, and what a generator learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import make, some_slow

from vargen import sharding
from vargen.config import part
from vargen.models import build_tokenizer
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import GeneratorTask, TokenizerTask


def images(config, count=8):
    size, channels = config.data.image_size, config.data.channels
    return np.random.default_rng(0).uniform(-1, 1, (count, size, size, channels)).astype(np.float32)


def doubled(factor, x, y):
    """A perceptual distance."""
    return dict(
        perceptual=factor * jnp.mean((x - y) ** 2, (1, 2, 3)), gram=jnp.mean(jnp.abs(x - y), (1, 2, 3))
    )


@pytest.mark.slow
def test_adversarial_tokenizer():
    """The discriminator waits for its start; then both sides learn. The adaptive weight and accumulation are on."""
    config = make("var")[0]
    s = config.tokenizer_training
    s.update(dict(warmup_steps=0, batch_size=8, accumulate=2))
    s.losses.update(dict(adversarial=0.5, adversarial_start=2, adaptive=True, perceptual=0.3))
    s.losses.update(dict(discriminator_learning_rate=1e-2, discriminator=dict(layers=1, width=4)))
    task = TokenizerTask(build_tokenizer(config), s, doubled)
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


DINO = part("dino", width=8, heads=2, patch=8, side=16, depths=(0,), kernel=3)
GAMES = dict(
    patch=dict(
        discriminator=part("patch", width=4, layers=1, spectral=True), lecam=0.1, lecam_decay=0.5, r1=1.0, r1_every=2
    ),
    stylegan=dict(discriminator=part("stylegan", width=4, deviation=2), r1=10.0, adversarial_kind="non_saturating"),
    dino=dict(discriminator=DINO, lecam=0.001, adversarial_kind="vanilla"),
    losses=dict(adversarial=0.0, ms_ssim=1.0, gram=0.1, l2=0.0),
)  # fmt: skip


@pytest.mark.parametrize("name", some_slow(GAMES, ("stylegan", "dino", "losses")))
def test_games(name):
    """Every discriminator with its regularisers, and the other losses: what is kept changes as it should."""
    config = make("var")[0]
    s = config.tokenizer_training
    s.update(dict(warmup_steps=0, batch_size=8, accumulate=2, learning_rate=1e-2))
    with s.losses.unlocked():
        s.losses.update(
            dict(adversarial=0.5, adversarial_start=2, adaptive=True, discriminator_learning_rate=1e-2)
        )
        s.losses.update(GAMES[name])
    task = TokenizerTask(build_tokenizer(config), s, doubled)
    networks = ["model", "discriminator"] if s.losses.adversarial else ["model"]
    mesh = sharding.make_mesh()
    now = state.create(task, optimizer.build(s, networks), mesh, jax.random.key(0))
    step = make_step(task, s, mesh)
    phases = np.random.default_rng(0).uniform(0, 6, (8, 1, 1, 1))
    waves = np.sin(phases + 0.4 * np.arange(16)[:, None]) * np.cos(
        phases + 0.3 * np.arange(16)[:, None, None]
    )
    batch = sharding.put_batch(dict(image=waves.astype(np.float32)), mesh)
    frozen = dict(perceptual=jnp.float32(2.0), discriminator={})
    if name == "dino":
        shapes = task.adversary.discriminator.frozen()
        keys = jax.random.split(jax.random.key(5), len(shapes))
        frozen["discriminator"] = {
            k: 0.3 * jax.random.normal(key, x.shape) for key, (k, x) in zip(keys, shapes.items(), strict=True)
        }
    history, kept = [], [jax.device_get(now.stats.get("discriminator", {}))]
    for _ in range(5):
        now, metrics = step(now, frozen, batch, jax.random.key(1))
        history.append(jax.device_get(metrics))
        kept.append(jax.device_get(now.stats.get("discriminator", {})))
    assert all(row["finite"] for row in history)
    assert int(now.stats["updates"]) == 10
    assert set(kept[0]) == dict(patch={"spectral", "lecam"}, dino={"spectral", "lecam"}).get(name, set())
    if name == "losses":
        assert "discriminator_loss" not in history[0]
        assert history[4]["ms_ssim"] > history[0]["ms_ssim"] and history[4]["gram"] < history[0]["gram"]
        return
    assert history[1]["discriminator_grad_norm"] == 0 < history[2]["discriminator_grad_norm"]
    if "lecam" in kept[0]:
        # Two micro-batches an update, from the start of the game on.
        assert not kept[2]["lecam"].any() and kept[3]["lecam"].any()
        means = [history[2][k] for k in ("logits_real", "logits_fake")]
        if name == "patch":
            assert np.sign(kept[3]["lecam"]).tolist() == np.sign(means).tolist()
        assert history[4]["lecam"] > 0
    if "spectral" in kept[0]:  # followed before the game, too
        for a, b in zip(*(jax.tree.leaves(k["spectral"]) for k in (kept[0], kept[1])), strict=True):
            np.testing.assert_allclose([np.linalg.norm(x) for x in (a, b)], 1.0, rtol=1e-5)
            assert a.size == 1 or np.abs(a - b).max() > 1e-3
    if "r1" in history[0]:
        every = s.losses.r1_every
        assert [row["r1"] > 0 for row in history] == [i % every == 0 for i in range(5)]


@pytest.mark.parametrize("name", some_slow(["var", "mar", "rqtransformer"], ["mar", "rqtransformer"]))
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


@pytest.mark.slow
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
