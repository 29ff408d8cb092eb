"""One training step: a pure, jitted function from a state and a batch to the next state and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vargen import sharding
from vargen.training import optimizer
from vargen.training.state import TrainState, boxed, shardings
from vargen.training.tasks import Task

Update = Callable[[TrainState, Any, dict[str, jax.Array], jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def make_step(task: Task, settings: Any, mesh: Mesh) -> Update:
    """The jitted step of `task`: (state, frozen, batch, key) -> (state, metrics).

    `state` is donated. `frozen` is whatever the task needs and doesn't train (a generator's tokenizer).
    `key` is the run's key: the step's own is fold_in(key, state.step), so that a resumed run needs nothing
    but the state. `settings.accumulate` splits the batch into that many micro-batches, walked one after the
    other; the update is that of the whole batch.

    Metrics (float32 [], plus `finite` bool []): `loss`, `grad_norm` (before clipping), `param_norm`,
    `learning_rate`, those of the task, and `discriminator_grad_norm` where there is a discriminator. `finite`
    says whether all of them are; the norms make it speak for every gradient and parameter.
    """
    optimizers = optimizer.build(settings, boxed(task))
    where, whole = shardings(task, optimizers, mesh), sharding.replicated(mesh)
    jitted = jax.jit(
        update(task, settings, mesh),
        donate_argnums=0,
        in_shardings=(where, None, sharding.batch_sharding(mesh), None),
        out_shardings=(where, whole),
    )
    return OnMesh(jitted, mesh)


def update(task: Task, settings: Any, mesh: Any) -> Update:
    """The step of `make_step` as a plain function, for tracing it."""
    optimizers = optimizer.build(settings, boxed(task))
    rate = optimizer.schedule(settings)

    def step(state: TrainState, frozen: Any, batch: dict, key: jax.Array) -> tuple[TrainState, dict]:
        loss_key, after_key = jax.random.split(jax.random.fold_in(key, state.step))
        grads, stats, metrics = _gradients(task, settings, mesh, state, frozen, batch, loss_key)

        params, opt_state = {}, {}
        for name, tx in optimizers.items():
            updates, opt_state[name] = tx.update(grads[name], state.opt_state[name], state.params[name])
            params[name] = optax.apply_updates(state.params[name], updates)
        params, stats = task.after_update(params, stats, frozen, batch, after_key, state.step)
        ema = average(state.ema, params["model"], settings.ema_decay, state.step, settings.ema_warmup)

        metrics |= dict(grad_norm=optax.global_norm(grads["model"]), param_norm=optax.global_norm(params))
        if "discriminator" in grads:
            metrics["discriminator_grad_norm"] = optax.global_norm(grads["discriminator"])
        metrics["finite"] = jnp.all(jnp.isfinite(jnp.stack([jnp.float32(m) for m in metrics.values()])))
        metrics["learning_rate"] = rate(state.step)
        return TrainState(state.step + 1, params, opt_state, ema, stats), metrics

    return step


@dataclasses.dataclass(frozen=True)
class OnMesh:
    """A jitted function whose mesh is at hand while it is traced: mixers run their kernels on it
    (`sharding.per_shard`)."""

    jitted: Any
    mesh: Mesh

    def __call__(self, *args):
        with jax.set_mesh(self.mesh):
            return self.jitted(*args)

    def lower(self, *args):
        """As `jax.jit(...).lower`, for compiling ahead of time."""
        with jax.set_mesh(self.mesh):
            return self.jitted.lower(*args)


def average(ema: Any, params: Any, decay: float, step: jax.Array, warmup: bool) -> Any:
    """The moving average after update number `step` (from 0); with a decay of 0 the parameters themselves.

    Warmed up, the decay is min(decay, (1 + step) / (10 + step)), so that the random initial parameters don't linger in
    the average of a short run.
    """
    if not decay:
        return params
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step)) if warmup else decay
    # Written so that parameters that don't change are their own average, to the last bit.
    return jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema, params)


def _gradients(
    task: Task, settings: Any, mesh: Mesh, state: TrainState, frozen: Any, batch: dict, key: jax.Array
) -> tuple[dict, Any, dict]:
    """Gradients by network, new stats, metrics, all averaged over the micro-batches of `batch`."""

    def of(stats: Any, part: dict, part_key: jax.Array) -> tuple[Any, tuple[dict, dict]]:
        grads, stats, metrics = _part(task, settings, state, stats, frozen, part, part_key)
        return stats, (grads, jax.tree.map(jnp.float32, metrics))

    accumulate = settings.accumulate
    if accumulate == 1:
        stats, (grads, metrics) = of(state.stats, batch, key)
        return grads, stats, metrics

    def split(x: jax.Array) -> jax.Array:
        # Every device keeps the examples that it has: micro-batch i takes examples i, i + accumulate, ...
        x = x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)
        spec = PartitionSpec(None, sharding.RULES["batch"])
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    parts = jax.tree.map(split, batch), jax.random.split(key, accumulate)
    shapes = jax.eval_shape(of, state.stats, *jax.tree.map(lambda x: x[0], parts))[1]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def body(carry: tuple, part: tuple) -> tuple[tuple, None]:
        stats, sums = carry
        stats, new = of(stats, *part)
        return (stats, jax.tree.map(jnp.add, sums, new)), None

    (stats, sums), _ = jax.lax.scan(body, (state.stats, zeros), parts)
    grads, metrics = jax.tree.map(lambda s: s / accumulate, sums)
    return grads, stats, metrics


def _part(
    task: Task, settings: Any, state: TrainState, stats: Any, frozen: Any, batch: dict, key: jax.Array
) -> tuple[dict, Any, dict]:
    """One forward pass of the model and of what learns with it; their gradients, and the discriminator's on the same
    outputs."""

    def model_loss(learning: Any) -> tuple[jax.Array, Any]:
        learning = dict(learning, model=optimizer.held(learning["model"], settings))
        return task.loss(dict(state.params, **learning), stats, frozen, batch, key, state.step)

    learning = {name: params for name, params in state.params.items() if name != "discriminator"}
    (loss, (stats, metrics, aux)), grads = jax.value_and_grad(model_loss, has_aux=True)(learning)
    metrics = dict(metrics, loss=loss)
    if "discriminator" in state.params:
        aux, tracked = jax.lax.stop_gradient((aux, stats))

        def judge(discriminator: Any) -> tuple[jax.Array, tuple[Any, dict]]:
            params = dict(state.params, discriminator=discriminator)
            return task.discriminator_loss(params, tracked, frozen, aux, batch, key, state.step)

        (_, (stats, more)), grads["discriminator"] = jax.value_and_grad(judge, has_aux=True)(
            state.params["discriminator"]
        )
        metrics |= more
    return grads, stats, metrics
