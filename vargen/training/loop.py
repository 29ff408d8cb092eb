"""The training loop, top to bottom."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vargen import limits, paths, schema, seeds, sharding
from vargen.errors import UserError
from vargen.training import optimizer, state
from vargen.training.checkpoints import Checkpoints, last_whole
from vargen.training.metrics import Metrics
from vargen.training.state import TrainState
from vargen.training.step import make_step
from vargen.training.tasks import Task


class TrainingError(UserError):
    """The run cannot go on: one line that names the step, the metric and the last good checkpoint."""


class Trained(NamedTuple):
    """How a run ended.

    Attributes:
      state: the last state, on the mesh.
      stopped_by: the number of the signal that came, if only at the last step, as whoever sent it wants no more of
        this process; else 0. The state is saved: a run that didn't reach `settings.steps` goes on when run again.
      seconds: of training, over all restarts.
    """

    state: TrainState
    stopped_by: int
    seconds: float


def train(
    task: Task,
    frozen: Any,
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    workdir: str | os.PathLike,
    config: Mapping[str, Any],
    settings: Any,
    *,
    seed: int = 0,
    mesh: jax.sharding.Mesh | None = None,
    on_images: Callable[[TrainState], Mapping[str, np.ndarray]] | None = None,
    validate: Callable[[TrainState], Mapping[str, float]] | None = None,
    initial: Callable[[], Any] | None = None,
    rows: Sequence[int] | None = None,
    title: str = "training",
    progress: bool = True,
) -> Trained:
    """Trains `task` in `workdir`, going on from the last whole checkpoint there.

    A run that is killed and started again gives, bit for bit on the same devices, what an uninterrupted one
    gives. Writes `checkpoints/`, `metrics.jsonl` and `tb/`.

    Args:
      task: see `vargen.training.tasks`.
      frozen: parameters that the task uses but doesn't train; {} for none.
      batches: start step -> endless iterator of this process's rows of each batch (`sharding.local_rows`), dict of
        arrays [b, ...]; batch k must be a function of k alone.
      workdir: for instance `WORKDIR/tokenizer`.
      config: stored in every checkpoint.
      settings: `config.tokenizer_training` or `config.training`.
      seed: of the initial parameters and of every step's randomness.
      mesh: by default `make_mesh(**settings.mesh)`.
      on_images: state -> name -> float [M, H, W, C] in [-1, 1]; shown every `settings.image_every` steps.
      validate: state -> metrics; called before each save and every `settings.validate_every` steps, recorded with the
        prefix "validation_". A "loss" among them decides which checkpoint is the best one.
      initial: gives parameters of the model to start with, a nested dict of NumPy arrays; see `state.start_from`.
        Called once, where there is no checkpoint.
      rows: of the classes in the initial parameters' table; see `state.start_from`.
      title: of the progress bar.
      progress: whether there is one.

    Raises:
      UserError: sizes that don't fit each other, or a checkpoint made by another config.
      TrainingError: a metric is no longer finite, or a batch cannot be had: what was trained until then is saved.
    """
    if mesh is None:
        mesh = sharding.make_mesh(**settings.mesh)
    known = limits.fields(schema.Training)
    limits.check(known, {k: getattr(settings, k) for k in known if hasattr(settings, k)}, "")
    sharding.check_batch(settings.batch_size, settings.accumulate, sharding.batch_devices(mesh))
    workdir = paths.path(workdir)

    with contextlib.ExitStack() as stack:
        # ---- SIGTERM and Ctrl-C are remembered, and acted upon between two steps ---------------------------
        stopped_by = stack.enter_context(_termination())

        # ---- Resume ----------------------------------------------------------------------------------------
        # The order matters:
        # 1. Shapes and shardings of the state, from the task, the optimizers and the mesh.
        # 2. The last whole checkpoint is read straight into that layout; where there is none, a fresh state, with
        #    the initial parameters where some are given.
        # 3. The step in that state says where everything else goes on: what was recorded later is dropped,
        #    batches start there, and each step's key is made from the run's key and the step.
        optimizers = optimizer.build(settings, state.boxed(task))
        init_key, run_key = jax.random.split(seeds.key(seed))
        checkpoints = Checkpoints(workdir, config, keep=settings.keep)
        stack.push(functools.partial(_leave, checkpoints))
        train_state = checkpoints.restore(state.abstract(task, optimizers, mesh))
        if train_state is None:
            train_state = state.create(task, optimizers, mesh, init_key)
            if initial is not None:
                train_state = state.start_from(train_state, initial(), rows)
        start = int(train_state.step)
        metrics = stack.enter_context(
            Metrics(
                workdir,
                steps=settings.steps,
                batch_size=settings.batch_size,
                work=task.work() if start < settings.steps else None,
                devices=list(mesh.devices.flat),
                start_step=start,
                title=title,
                enabled=jax.process_index() == 0,
                shown=progress and start < settings.steps,
            )
        )
        if start >= settings.steps:
            return Trained(train_state, 0, metrics.seconds)

        # ---- Everything the step needs, where it needs it --------------------------------------------------
        step_fn = make_step(task, settings, mesh)
        frozen = sharding.put_whole(frozen, mesh)
        run_key = jax.random.wrap_key_data(sharding.put_whole(jax.random.key_data(run_key), mesh))
        stream = batches(start)
        pending: list[dict[str, jax.Array]] = []  # metrics since the last record, still on the device
        saved, record = start, dict[str, float]()

        # ---- The loop --------------------------------------------------------------------------------------
        for step in range(start + 1, settings.steps + 1):  # `step` counts the updates, this one included
            try:
                batch = sharding.put_batch(_next(stream, step), mesh)
            except Exception:  # a broken picture, say: a long run isn't lost for it
                # Of several processes the others know nothing of it, and saving is done by all together.
                if step - 1 > saved and jax.process_count() == 1:
                    _save(checkpoints, metrics, train_state, pending, record, step - 1, workdir)
                raise
            with jax.transfer_guard("disallow"):
                train_state, new = step_fn(train_state, frozen, batch, run_key)
            # One step late: the device is busy with this step while the host waits for the one before.
            if pending:
                _check_finite(pending[-1], step - 1, workdir, checkpoints)
            pending.append(new)
            metrics.advance(step)

            last = step == settings.steps
            stopping = stopped_by(step)
            saving = last or bool(stopping) or step % settings.save_every == 0
            validating = validate is not None and (saving or _due(step, settings.validate_every))
            if saving or validating or step % settings.log_every == 0:
                _check_finite(new, step, workdir, checkpoints)
                record = _mean(pending)
                pending.clear()
                if validating:
                    with metrics.paused():
                        record |= {f"validation_{k}": float(v) for k, v in validate(train_state).items()}
                metrics.write(step, record)
            if saving:
                with metrics.paused():
                    checkpoints.save(train_state, record)
                    metrics.send()
                saved = step
            if on_images is not None and settings.image_every and (last or _due(step, settings.image_every)):
                with metrics.paused():
                    metrics.images(step, on_images(train_state))
            if stopping:
                break

        # ---- The end ---------------------------------------------------------------------------------------
        checkpoints.wait()
        if progress:
            metrics.say(metrics.summary(step))
        if not last:
            metrics.say(f"stopped at step {step} of {settings.steps}, saved: run again to go on")
        return Trained(train_state, stopping, metrics.seconds)


def _leave(checkpoints: Checkpoints, error: type[BaseException] | None, *_: Any) -> None:
    """Lets the save under way end; of an error that is this process's own the others know nothing yet."""
    if error is not None and jax.process_count() > 1:
        checkpoints.settle()
    else:
        checkpoints.wait()


def _save(
    checkpoints: Checkpoints,
    metrics: Metrics,
    train_state: TrainState,
    pending: list,
    record: dict[str, float],
    step: int,
    workdir: Any,
) -> None:
    """Saves the state after `step`; first records the steps since `record`, the last one."""
    if pending:
        _check_finite(pending[-1], step, workdir, checkpoints)
        record = _mean(pending)
        metrics.write(step, record)
    checkpoints.save(train_state, record)
    checkpoints.wait()
    metrics.say(f"saved at step {step}")


@contextlib.contextmanager
def _termination() -> Iterator[Callable[[int], int]]:
    """A function of the step: the signal that has come, SIGTERM or SIGINT, or 0.

    Ctrl-C finishes the step and saves, as SIGTERM does; a second one stops at once. Many processes agree on the step
    at which a signal has come. One that comes when no step asks any more is sent again at the end, to whom it went
    before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: 0  # signals go to the main thread, which isn't ours
        return
    came, told = [0], [False]

    def tell(step: int) -> int:
        number = came[0]
        told[0] = bool(number)
        return number

    def handle(number: int, frame: Any) -> None:
        came[0] = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print("\nsaving (Ctrl-C again: stop at once)", flush=True)
            if jax.process_count() > 1:
                signal.raise_signal(signal.SIGTERM)

    # With several processes jax.distributed catches SIGTERM and makes them agree on a step. What whoever started us
    # had ignored, as a shell does with Ctrl-C for jobs in the background, stays so.
    wanted = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
    caught = [number for number in wanted if signal.getsignal(number) != signal.SIG_IGN]
    before = [signal.signal(number, handle) for number in caught]
    try:
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            reached = multihost_utils.reached_preemption_sync_point
            yield lambda step: (came[0] or signal.SIGTERM) if reached(step) else 0
        else:
            yield tell
    finally:
        for number, handler in zip(caught, before, strict=True):
            signal.signal(number, handler)
    if came[0] and not told[0] and jax.process_count() == 1:
        signal.raise_signal(came[0])


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _next(stream: Iterator[dict], step: int) -> dict:
    try:
        return next(stream)
    except StopIteration:
        raise UserError(f"data: expected a batch for step {step}, found the end of the data") from None


def _check_finite(step_metrics: dict, step: int, workdir: pathlib.Path, checkpoints: Checkpoints) -> None:
    """Stops the run at the first step whose metrics are not all finite."""
    if bool(jax.device_get(step_metrics["finite"])):
        return
    checkpoints.wait()
    found = {k: float(v) for k, v in jax.device_get(step_metrics).items() if k != "finite"}
    wrong = [k for k in ("loss", *found) if not math.isfinite(found[k])]
    good = last_whole(checkpoints.folder)
    raise TrainingError(
        f"step {step}: {wrong[0]} is {found[wrong[0]]}; the last good checkpoint is {good or 'none yet'}; "
        "a lower learning_rate or clip_norm, or compute_dtype=float32, may help"
    )


def _mean(pending: list[dict[str, jax.Array]]) -> dict[str, float]:
    """Metrics averaged over steps; the learning rate as it is now."""
    rows = jax.device_get(pending)
    mean = {k: float(np.mean([row[k] for row in rows])) for k in rows[-1] if k != "finite"}
    return mean | dict(learning_rate=float(rows[-1]["learning_rate"]))
