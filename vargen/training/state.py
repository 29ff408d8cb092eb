"""The whole state of a training run as one frozen struct, born sharded."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import meta
from jax.sharding import Mesh

from vargen import sharding, weights_file
from vargen.conditioning.label import TABLE
from vargen.errors import UserError
from vargen.heads.masked_lm import CLASS_BIAS
from vargen.training.tasks import Task

Optimizers = dict[str, optax.GradientTransformation]
BY_CLASS = (TABLE, CLASS_BIAS)  # what has a row for each class, and maybe one behind them for none

_BOXED: weakref.WeakKeyDictionary[Task, Any] = weakref.WeakKeyDictionary()


@flax.struct.dataclass
class TrainState:
    """What a step reads and writes, and what a checkpoint holds.

    Attributes:
      step: int32 [], updates done so far.
      params: float32 parameters of the networks by name: "model", and "discriminator", "projection" and "prior" where
        there are some.
      opt_state: optimizer states by the same names.
      ema: exponential moving average of `params["model"]`.
      stats: what is tracked but not trained (codebook usage and the like).
    """

    step: jax.Array
    params: dict[str, Any]
    opt_state: dict[str, Any]
    ema: Any
    stats: Any


def boxed(task: Task) -> Any:
    """Shapes and dtypes of a task's parameters in their logical boxes; traced once for each task."""
    if task not in _BOXED:
        _BOXED[task] = jax.eval_shape(task.init_boxed, jax.eval_shape(lambda: jax.random.key(0)))
    return _BOXED[task]


def shapes(task: Task, optimizers: Optimizers) -> TrainState:
    """Shapes and dtypes of the state."""
    return jax.eval_shape(lambda params: _begun(task, optimizers, params), meta.unbox(boxed(task)))


def initial(task: Task, optimizers: Optimizers, key: jax.Array) -> TrainState:
    """The state before the first step; pure. `create` calls it sharded."""
    return _begun(task, optimizers, meta.unbox(task.init_boxed(key)))


def _begun(task: Task, optimizers: Optimizers, params: Any) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={name: tx.init(params[name]) for name, tx in optimizers.items()},
        ema=jax.tree.map(jnp.copy, params["model"]),
        stats=task.init_stats(),
    )


def shardings(task: Task, optimizers: Optimizers, mesh: Mesh) -> TrainState:
    """The sharding of every array of the state: moments lie like their parameters, the rest is replicated."""
    of_params = sharding.param_shardings(boxed(task), mesh)
    whole = sharding.replicated(mesh)
    state = shapes(task, optimizers)
    of_opt = {}
    for name, tx in optimizers.items():
        # jit would leave the moments replicated until the first step, so their place is said here.
        of_opt[name] = optax.tree_map_params(
            tx, lambda _, s: s, state.opt_state[name], of_params[name], transform_non_params=lambda _: whole
        )
    stats = jax.tree.map(lambda _: whole, state.stats)
    return TrainState(whole, of_params, of_opt, of_params["model"], stats)


def abstract(task: Task, optimizers: Optimizers, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state; nothing is allocated. What a checkpoint is restored into."""
    where = shardings(task, optimizers, mesh)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes(task, optimizers), where
    )


def create(task: Task, optimizers: Optimizers, mesh: Mesh, key: jax.Array) -> TrainState:
    """A fresh state on `mesh`.

    Shapes first, shardings from the rules, then one jitted initialisation that writes every array where it
    belongs: no parameter ever exists unsharded. The values don't depend on the mesh.
    """
    init = jax.jit(lambda k: initial(task, optimizers, k), out_shardings=shardings(task, optimizers, mesh))
    return init(key)


def start_from(state: TrainState, params: Any, rows: Sequence[int] | None = None) -> TrainState:
    """A fresh state with given parameters of the model, and the same as their average.

    The table of classes takes over the rows that `rows` names, and the one behind them, which stands for no class; its
    other rows start anew. Without `rows` it is taken as it is, or where it has another number of rows starts anew but
    for the last, with a line that says so.

    Args:
      state: of `create`.
      params: nested dict of NumPy arrays.
      rows: of each class the row of the given table, -1 for none.

    Raises:
      UserError: other parameters than the model's.
    """
    anew = differing(state.params["model"], params)
    if anew and rows is None and jax.process_index() == 0:
        print(f"starts anew: {', '.join(anew.values())}", flush=True)
    given = dict(weights_file.flatten(params))

    def put(path, old):
        name = "/".join(key.key for key in path)
        new = np.asarray(given[name], old.dtype)
        if name in BY_CLASS and rows is not None:
            kept = [i for i, row in enumerate(rows) if row >= 0]
            none = [-1] * (len(old) - len(rows))
            return old.at[np.array([*kept, *none], int)].set(
                new[np.array([*(rows[i] for i in kept), *none], int)]
            )
        if name in anew:
            return old.at[-1].set(new[-1])
        return jax.make_array_from_callback(new.shape, old.sharding, lambda index: new[index])

    model = functools.partial(jax.tree_util.tree_map_with_path, put)
    return state.replace(params=dict(state.params, model=model(state.params["model"])), ema=model(state.ema))


def differing(ours: Any, given: Any) -> dict[str, str]:
    """The tables of the condition, and of the head's classes, whose numbers of rows differ, by name, each with a text
    that says so.

    Raises:
      UserError: any other difference between the two trees' names and shapes.
    """
    trees = [dict(weights_file.flatten(tree)) for tree in (ours, given)]
    shapes = [{name: tuple(x.shape) for name, x in tree.items()} for tree in trees]
    tables, others = {}, []
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        a, b = (s.get(name) for s in shapes)
        if a != b:
            text = f"{name} (expected {a or 'none'}, found {b or 'none'})"
            if (name.startswith("condition/") or name in BY_CLASS) and a and b and a[1:] == b[1:]:
                tables[name] = text
            else:
                others.append(text)
    if others:
        more = f" and {len(others) - 4} more" if len(others) > 4 else ""
        raise UserError(f"initial parameters: {', '.join(others[:4])}{more}")
    return tables
