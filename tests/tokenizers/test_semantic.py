"""The loss that draws a tokenizer towards a teacher: against float64, in the step, at every place where it may act."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny
from test_teachers import TINY

from vargen import config, sharding
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers import semantic
from vargen.training import optimizer, state, step
from vargen.training.tasks import TokenizerTask

TEACHER = part(**{**TINY["siglip"], "side": 16, "places": 4})  # 4x4 places, as the latents of `tiny`


def settings(**losses):
    c = config.load("configs/var.py:digits")
    c.tokenizer_training.update(dict(steps=10, warmup_steps=0, batch_size=4))
    c.tokenizer_training.losses.update(
        dict(dict(l2=1.0, semantic=0.5, semantic_hidden=8, teacher=TEACHER), **losses)
    )
    return c.tokenizer_training


def test_losses_in_float64():
    rng = np.random.default_rng(0)
    own, said = rng.normal(size=(2, 3, 2, 4, 5))
    cosines = (own * said).sum(-1) / np.linalg.norm(own, axis=-1) / np.linalg.norm(said, axis=-1)
    np.testing.assert_allclose(
        semantic.cosine(jnp.float32(own), jnp.float32(said)), 1 - cosines.mean(), rtol=1e-5
    )
    a, b = rng.normal(size=(2, 6, 5))
    logits = a @ b.T / 0.5
    rows = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    columns = np.log(np.exp(logits).sum(0)) - np.diag(logits)
    found = semantic.contrastive(jnp.float32(a), jnp.float32(b), 0.5)
    np.testing.assert_allclose(found, (rows.mean() + columns.mean()) / 2, rtol=1e-5)


def test_a_teacher_of_another_grid_is_interpolated():
    """A teacher that says the same everywhere says so on every grid."""
    own = jax.random.normal(jax.random.key(0), (2, 4, 4, 5))
    said = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (2, 1, 1, 5)), (2, 7, 7, 5))
    np.testing.assert_allclose(semantic.cosine(own, said), semantic.cosine(own, said[:, :4, :4]), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, losses",
    [
        pytest.param("vq", dict(semantic_kind="contrastive", semantic_hidden=0), marks=pytest.mark.slow),
        ("vq", dict(semantic_at="block0")),
        pytest.param("kl", dict(semantic_channels=2), marks=pytest.mark.slow),
        pytest.param("multiscale_vq", dict(), marks=pytest.mark.slow),
    ],
)
def test_one_step(name, losses):
    """The loss is the tokenizer's own and the weighted semantic one of the task's parts; it reaches the encoder and the
    projection, and what lies behind where it acts not at all; the average that is kept has no projection."""
    t, s = tiny(name), settings(**losses)
    task = TokenizerTask(t, s)
    optimizers = optimizer.build(s, state.boxed(task))
    start = jax.jit(functools.partial(state.initial, task, optimizers))(jax.random.key(0))
    assert set(start.params) == {"model", "projection"} and set(start.ema) == {
        "encoder",
        "decoder",
        "quantizer",
    }
    frozen = dict(teacher=jax.jit(task.semantic.teacher.init)(jax.random.key(1)))
    images = jax.random.uniform(jax.random.key(2), (4, 16, 16, 1), minval=-1)

    @jax.jit
    def run(params):
        def drawn(params):
            latents = t.bottleneck(params["model"], start.stats, images, jax.random.key(3))[0]
            own = params["projection"], frozen["teacher"], params["model"]
            return task.semantic(*own, latents, None, images, jax.random.key(3))

        def loss(params, task):
            return task.loss(params, start.stats, frozen, dict(image=images), jax.random.key(3), 0)[0]

        plain = TokenizerTask(t, settings(semantic=0.0))
        value, gradient = jax.value_and_grad(drawn)(params)
        return value, loss(params, task), loss(params, plain), gradient

    value, whole, plain, gradient = run(start.params)
    assert 0 < value
    np.testing.assert_allclose(whole, plain + 0.5 * value, rtol=1e-5)
    assert all(np.any(g) for g in jax.tree.leaves(gradient["projection"]))
    assert any(np.any(g) for g in jax.tree.leaves(gradient["model"]["encoder"]))
    decoder = gradient["model"]["decoder"]
    assert any(np.any(g) for g in jax.tree.leaves(decoder.get("block0", {}))) == ("semantic_at" in losses)
    assert not any(np.any(g) for g in jax.tree.leaves(decoder["patch_out"]))

    mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    after, metrics = jax.jit(step.update(task, s, mesh))(start, frozen, dict(image=images), jax.random.key(4))
    assert metrics["finite"] and metrics["semantic"] > 0
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start.params, after.params)
    assert all(jax.tree.leaves(moved["projection"]))


def test_rows_of_registers_decoders():
    """What a decoder of registers gives for its patches; its blocks hold other rows too, and loop over layers."""
    for at in ("norm_out", "latents"):
        task = TokenizerTask(tiny("registers"), settings(semantic_at=at))
        boxed = jax.eval_shape(task.init_boxed, jax.random.key(0))
        assert boxed["projection"]["hidden0"]["kernel"].value.shape == (16 if at == "norm_out" else 4, 8)
    for at, message in (
        ("blocks", "whose rows are places of the picture"),
        ("block", "norm_out, .* found 'block'"),
    ):
        with pytest.raises(UserError, match=f"semantic_at: expected .* {message}"):
            task = TokenizerTask(tiny("registers"), settings(semantic_at=at))
            jax.eval_shape(task.init_boxed, jax.random.key(0))


@pytest.mark.slow
def test_it_is_learnt():
    """With nothing else to learn, features come near the teacher's within some updates."""
    t, s = tiny("vq", vocab=512), settings(l2=0.0)
    s.update(dict(learning_rate=1e-2, schedule="constant", steps=60))
    task = TokenizerTask(t, s)
    mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    now = jax.jit(functools.partial(state.initial, task, optimizer.build(s, state.boxed(task))))(
        jax.random.key(0)
    )
    frozen = dict(teacher=jax.jit(task.semantic.teacher.init)(jax.random.key(1)))
    batch = dict(image=jax.random.uniform(jax.random.key(2), (8, 16, 16, 1), minval=-1))
    update = jax.jit(step.update(task, s, mesh))
    found = []
    for _ in range(s.steps):
        now, metrics = update(now, frozen, batch, jax.random.key(4))
        found.append(float(metrics["semantic"]))
    assert found[-1] < 0.3 * found[0], found


def test_patterns_of_what_is_trained_are_the_models():
    """With the decoder alone trained, the projection is trained all the same."""
    s = settings(semantic_at="block0")
    s.trained = ("decoder/*",)
    optimizers = optimizer.build(s, ["model", "projection"])
    for name, moves in (("model", False), ("projection", True)):
        params = dict(out=dict(kernel=jnp.ones((2, 2))))
        updates, _ = optimizers[name].update(params, optimizers[name].init(params), params)
        assert bool(np.any(updates["out"]["kernel"])) == moves


def test_refused():
    def init(**losses):
        task = TokenizerTask(tiny("vq"), settings(**losses))
        return jax.eval_shape(task.init_boxed, jax.random.key(0))

    group = "config field tokenizer_training.losses"
    with pytest.raises(UserError, match=f"{group}.teacher: expected a part, .* found None"):
        init(teacher=None)
    with pytest.raises(
        UserError, match=f"{group}.semantic_at: expected latents or a module .* block0, .*'block7'"
    ):
        init(semantic_at="block7")
    with pytest.raises(UserError, match=f"{group}.semantic_channels: expected at most 4, found 5"):
        init(semantic_channels=5)
    with pytest.raises(UserError, match=f"{group}.teacher.weights: expected a file of SigLIP's weights"):
        TokenizerTask(tiny("vq"), settings()).semantic.teacher.load()
