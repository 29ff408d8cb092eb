"""The jitted step: accumulation, averages, masks, schedules, the discriminator."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import meta
from training_fakes import FROZEN, FakeTask, batch_at, settings

from vargen import schema, sharding
from vargen.errors import UserError
from vargen.training import optimizer, state
from vargen.training.step import average, make_step


def run(task, s, steps, mesh=None):
    mesh = mesh or sharding.make_mesh(devices=jax.devices()[:1])
    optimizers = optimizer.build(s, state.boxed(task))
    train_state = state.create(task, optimizers, mesh, jax.random.key(1))
    step = make_step(task, s, mesh)
    history, states = [], []
    for k in range(steps):
        batch = sharding.put_batch(batch_at(k), mesh)
        train_state, metrics = step(train_state, FROZEN, batch, jax.random.key(2))
        history.append(jax.device_get(metrics))
        states.append(jax.tree.map(np.array, train_state))
    return train_state, history, states


@pytest.fixture(scope="module")
def plain():
    return run(FakeTask(noise=0.0), settings(), 4)


def test_loss_falls_and_metrics_are_complete(plain):
    history = plain[1]
    assert history[-1]["loss"] < history[0]["loss"]
    expected = {
        "loss", "mse", "fooling", "discriminator_loss", "grad_norm", "discriminator_grad_norm",
        "param_norm", "learning_rate", "finite",
    }  # fmt: skip
    assert set(history[0]) == expected
    assert all(row["finite"] for row in history)


def test_accumulation_equals_the_whole_batch(plain):
    one, one_history, _ = plain
    four, four_history, _ = run(FakeTask(noise=0.0), settings(accumulate=4), 4)
    for a, b in zip(one_history, four_history):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=2e-6)
        np.testing.assert_allclose(a["discriminator_loss"], b["discriminator_loss"], rtol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), one.params, four.params)
    assert int(four.step) == 4 and int(four.stats["updates"]) == 16


def test_parameters_are_traced_once_for_their_shapes():
    """Which takes seconds where a model is large."""
    task, calls = FakeTask(), []
    traced, task.init_boxed = task.init_boxed, lambda key: calls.append(key) or traced(key)
    mesh, optimizers = (
        sharding.make_mesh(devices=jax.devices()[:1]),
        optimizer.build(settings(), state.boxed(task)),
    )
    found = state.abstract(task, optimizers, mesh)
    make_step(task, settings(), mesh)
    assert len(calls) == 1
    expected = jax.eval_shape(lambda key: state.initial(task, optimizers, key), jax.random.key(0))
    jax.tree.map(
        lambda a, b: [a.shape, a.dtype] == [b.shape, b.dtype] or pytest.fail(f"{a} {b}"), found, expected
    )


def test_step_equals_optax_by_hand(plain):
    """One step of the model's part written out: same gradients, clipping, AdamW, average."""
    task, s = FakeTask(noise=0.0), settings()
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    tx = optimizer.adamw(s)
    params = state.create(task, dict(model=tx), mesh, jax.random.key(1)).params
    batch = batch_at(0)

    def loss(model):
        return task.loss(dict(params, model=model), task.init_stats(), FROZEN, batch, jax.random.key(0), 0)[0]

    @jax.jit
    def by_hand(model):
        value, grads = jax.value_and_grad(loss)(model)
        return value, grads, tx.update(grads, tx.init(model), model)[0]

    value, grads, updates = by_hand(params["model"])
    after, history = plain[2][0], plain[1]
    np.testing.assert_allclose(history[0]["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(history[0]["grad_norm"], optax.global_norm(grads), rtol=1e-6)
    expected = optax.apply_updates(params["model"], updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.params["model"], expected)
    ema = jax.tree.map(lambda e, p: 0.1 * e + 0.9 * p, params["model"], expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.ema, ema)


def test_average_warms_up():
    zero, one = jnp.zeros(3), jnp.ones(3)
    np.testing.assert_allclose(average(zero, one, 0.999, jnp.int32(0), True), 0.9)  # decay 1/10
    np.testing.assert_allclose(average(zero, one, 0.999, jnp.int32(8), True), 0.5)  # decay 9/18
    np.testing.assert_allclose(average(zero, one, 0.999, jnp.int32(10**7), True), 0.001, rtol=1e-4)
    np.testing.assert_allclose(average(zero, one, 0.999, jnp.int32(0), False), 0.001, rtol=1e-4)
    for warmup in (True, False):
        np.testing.assert_array_equal(average(zero, one, 0.0, jnp.int32(5), warmup), 1.0)


def test_schedules():
    s = settings(learning_rate=1.0, min_learning_rate=0.2, warmup_steps=10, steps=110)
    cosine = optimizer.schedule(s)
    np.testing.assert_allclose([cosine(0), cosine(4), cosine(9)], [0.1, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(
        [cosine(10), cosine(60), cosine(110), cosine(500)], [1, 0.6, 0.2, 0.2], rtol=1e-6
    )
    np.testing.assert_allclose(cosine(35), 0.2 + 0.8 * 0.5 * (1 + np.cos(np.pi / 4)), rtol=1e-6)
    # The last update ends the line.
    linear = optimizer.schedule(SimpleNamespace(**(vars(s) | dict(schedule="linear", steps=111))))
    np.testing.assert_allclose(
        [linear(4), linear(10), linear(60), linear(110)], [0.5, 1, 0.6, 0.2], rtol=1e-6
    )
    held = optimizer.schedule(SimpleNamespace(**(vars(s) | dict(warmup_start=0.2, hold=0.5))))
    np.testing.assert_allclose([held(0), held(5), held(10)], [0.2, 0.6, 1.0], rtol=1e-6)
    np.testing.assert_allclose([held(60), held(85), held(110)], [1.0, 0.6, 0.2], rtol=1e-6)
    for start in (None, 0.0):
        constant = optimizer.schedule(
            settings(learning_rate=2.0, warmup_steps=0, warmup_start=start, schedule="constant")
        )
        np.testing.assert_allclose([constant(0), constant(99)], [2.0, 2.0])


def test_weight_decay_changes():
    """As optax applies it, update by update."""
    s = settings(weight_decay=0.5, final_weight_decay=0.1, steps=5, learning_rate=0.1, warmup_steps=0)
    s.schedule = "constant"
    tx, params = optimizer.adamw(s), dict(kernel=jnp.ones(2))
    state, found = tx.init(params), []
    for _ in range(5):
        updates, state = tx.update(dict(kernel=jnp.zeros(2)), state, params)
        found.append(-10 * updates["kernel"][0])
    np.testing.assert_allclose(found, [0.1 + 0.2 * (1 + np.cos(np.pi * k / 4)) for k in range(5)], rtol=1e-5)


def test_decay_follows_patterns():
    params = dict(a=dict(kernel=0, table=0, bias=0), head=dict(kernel=0, lead=0))
    found = optimizer.matching(params, ("*kernel", "!head/*", "head/lead", "*table", "!*table"))
    assert found == dict(a=dict(kernel=True, table=False, bias=False), head=dict(kernel=False, lead=True))
    optimizer.check_patterns(params, ("*kernel", "!head/*"), "training.decay")
    with pytest.raises(
        UserError, match=r"training\.decay: expected .* a/bias, found 'a/kernels', which none"
    ):
        optimizer.check_patterns(params, ("*kernel", "a/kernels"), "training.decay")


def test_decay_touches_kernels_alone():
    shapes = meta.unbox(jax.eval_shape(FakeTask().init_boxed, jax.random.key(0)))["model"]
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
    mask = optimizer.matching(params, schema.Training.decay)
    assert {k for k, v in mask.items() if v} == {"in_kernel", "kernel", "odd_kernel", "out_kernel"}
    s = settings(weight_decay=0.5, learning_rate=0.1, warmup_steps=0, schedule="constant")
    tx = optimizer.adamw(s)
    updates = jax.jit(lambda p: tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p)[0])(params)
    for name, update in updates.items():
        np.testing.assert_allclose(update, -0.05 if mask[name] else 0.0, rtol=1e-6)


def test_discriminator_has_its_own_rate():
    s = settings(warmup_steps=0, schedule="constant")
    s.losses.discriminator_learning_rate = 0.0
    _, _, (first, second) = run(FakeTask(), s, 2)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first.params, second.params)
    assert all(jax.tree.leaves(same["discriminator"])) and not any(jax.tree.leaves(same["model"]))


def test_a_bad_loss_shows_in_finite():
    _, history, _ = run(FakeTask(nan_at=1, adversarial=False), settings(), 2)
    assert history[0]["finite"] and not history[1]["finite"]
    assert "discriminator_loss" not in history[0]
