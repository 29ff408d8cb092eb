"""The loop: resuming bit for bit after any death, SIGTERM, NaN, what is recorded."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from training_fakes import CONFIG, FROZEN, FakeTask, batch_at, batches, settings

from vargen import sharding
from vargen.errors import UserError
from vargen.training import metrics
from vargen.training.checkpoints import load_params, saved_steps
from vargen.training.loop import TrainingError, train


def go(workdir, task=None, stream=batches, **changes):
    options = {k: changes.pop(k) for k in ("on_images", "validate") if k in changes}
    s = settings(**changes)
    return train(task or FakeTask(), FROZEN, stream, workdir, CONFIG, s, progress=False, **options)


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return workdir, go(workdir, steps=22)


def trained_in_processes(workdir, *moments):
    """What is printed by a process that is killed at each moment, and by one that then trains to the end."""
    command = [sys.executable, pathlib.Path(__file__).parent / "training_worker.py", workdir, "22", *moments]
    environment = dict(os.environ, JAX_PLATFORMS="cpu")
    done = subprocess.run([*command, "never"], capture_output=True, text=True, env=environment)
    assert not done.returncode, done.stderr[-3000:]
    *printed, ended = done.stdout.strip().splitlines()
    assert json.loads(ended) == [-signal.SIGKILL] * len(moments) + [0], done.stderr[-3000:]
    return "\n".join(printed)


def same_run(workdir, uninterrupted):
    """The run in `workdir`, finished, equals the uninterrupted one: state and records."""
    other, expected = uninterrupted
    again = go(workdir, steps=22)  # nothing is left to train: the state as it was saved
    assert_same(again.state, expected.state)
    rows, expected_rows = (metrics.read(path / metrics.FILE) for path in (workdir, other))
    varying = ("seconds", "images_per_second", "tokens_per_second", "gflop_per_second")
    strip = [[{k: v for k, v in row.items() if k not in varying} for row in r] for r in (rows, expected_rows)]
    assert strip[0] == strip[1]
    assert all(a["seconds"] <= b["seconds"] for a, b in zip(rows, rows[1:]))


def test_killed_runs_resume_bit_for_bit(tmp_path, uninterrupted):
    """Killed three times on its way: between steps, while a checkpoint is written, before its manifest."""
    printed = trained_in_processes(tmp_path, "batch:7", "writing:8", "manifest:16")
    assert "checkpoints/16 is not whole (no manifest.json, it was not finished): using 12" in printed
    same_run(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["batch:1", "batch:4", "batch:5", "batch:6", "writing:4", "manifest:4", "discard:12"]
)
def test_killed_at_any_moment(tmp_path, uninterrupted, moment):
    trained_in_processes(tmp_path, moment)
    same_run(tmp_path, uninterrupted)


def sigterm_at(step):
    """Batches; before that step, the process gets SIGTERM."""

    def stream(start):
        for k, batch in enumerate(batches(start), start):
            if k + 1 == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    return stream


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals need the main thread"
)
def test_sigterm_saves_and_a_later_run_goes_on(tmp_path, uninterrupted, capsys):
    before = signal.getsignal(signal.SIGTERM)
    stopped = go(tmp_path, stream=sigterm_at(6), steps=22)
    assert stopped.stopped_by == signal.SIGTERM and int(stopped.state.step) == 6
    assert "stopped at step 6 of 22, saved: run again to go on" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before
    assert saved_steps(tmp_path / "checkpoints") == [4, 6]
    seen = []

    def rest(start):
        seen.append(start)
        return batches(start)

    done = go(tmp_path, stream=rest, steps=22)
    assert seen == [6] and not done.stopped_by
    assert_same(done.state, uninterrupted[1].state)


@pytest.mark.slow
@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals need the main thread"
)
def test_a_signal_at_the_last_step_or_after_it_is_not_lost(tmp_path):
    """Of two stages the second isn't begun: the first tells of it, or who handled it before hears of it."""
    assert go(tmp_path / "at", stream=sigterm_at(4), steps=4).stopped_by == signal.SIGTERM
    heard = []

    def on_images(train_state):
        os.kill(os.getpid(), signal.SIGTERM)
        return dict(samples=np.zeros((5, 4, 4, 1)))

    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        done = go(tmp_path / "after", steps=4, image_every=4, on_images=on_images)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (
        heard == [signal.SIGTERM]
        and not done.stopped_by
        and saved_steps(tmp_path / "after/checkpoints") == [4]
    )


def test_records(uninterrupted):
    workdir, done = uninterrupted
    rows = metrics.read(workdir / metrics.FILE)
    assert [row["step"] for row in rows] == list(range(2, 23, 2))
    assert {"loss", "grad_norm", "learning_rate", "images_per_second", "seconds", "mse"} <= set(rows[0])
    for row in rows:  # the fake's 8 tokens and 2 MFLOP an image; nobody knows what a CPU does at best
        assert row["tokens_per_second"] == pytest.approx(8 * row["images_per_second"], rel=1e-3)
        assert row["gflop_per_second"] == pytest.approx(2e-3 * row["images_per_second"], rel=1e-3)
        assert "mfu" not in row
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["seconds"] == pytest.approx(done.seconds, abs=1e-3)
    assert list((workdir / metrics.BOARD).glob("events*"))


def test_a_finished_run_is_not_trained_again(uninterrupted):
    def stream(start):
        raise AssertionError("no batch is needed")

    again = go(uninterrupted[0], stream=stream, steps=22)
    assert not again.stopped_by and again.seconds > 0
    assert_same(again.state, uninterrupted[1].state)


@pytest.mark.parametrize(
    "nan_at, good", [(5, "checkpoints/4"), pytest.param(3, "none yet", marks=pytest.mark.slow)]
)
def test_nan_stops_the_run(tmp_path, nan_at, good):
    """Steps count from 1: index 5 is the 6th. At the 4th, the save itself must refuse."""
    with pytest.raises(
        TrainingError, match=f"step {nan_at + 1}: loss is nan; the last good checkpoint is .*{good}"
    ):
        go(tmp_path, task=FakeTask(nan_at=nan_at), log_every=100)
    assert saved_steps(tmp_path / "checkpoints") == ([4] if nan_at > 4 else [])


def test_images_and_validation(tmp_path):
    seen = []

    def on_images(train_state):
        seen.append(int(train_state.step))
        return dict(samples=np.zeros((5, 4, 4, 1)))

    losses = iter([3.0, 1.0, 2.0, 2.5])
    done = go(
        tmp_path,
        steps=16,
        keep=1,
        image_every=6,
        on_images=on_images,
        validate=lambda _: dict(loss=next(losses)),
    )
    assert seen == [6, 12, 16] and not done.stopped_by
    assert saved_steps(tmp_path / "checkpoints") == [8, 16]  # the best, and the last one
    _, params, step = load_params(tmp_path, "params", "best")
    assert step == 8
    rows = {row["step"]: row for row in metrics.read(tmp_path / metrics.FILE)}
    assert rows[8]["validation_loss"] == 1.0 and "validation_loss" not in rows[6]
    with pytest.raises(UserError, match=r"expected params\['model'\]\['bias'\] none, found"):
        go(tmp_path, task=OtherTask(), steps=20)


def test_validates_when_asked(tmp_path):
    """Between saves too; the saved checkpoints stay those of `save_every`."""
    seen = []

    def validate(train_state):
        seen.append(int(train_state.step))
        return dict(loss=1.0)

    go(tmp_path, steps=10, keep=9, validate_every=3, validate=validate)
    assert seen == [3, 4, 6, 8, 9, 10]  # saves at 4, 8 and the end
    rows = {row["step"]: row for row in metrics.read(tmp_path / metrics.FILE)}
    assert [step for step in rows if "validation_loss" in rows[step]] == seen
    assert saved_steps(tmp_path / "checkpoints") == [4, 8, 10]


class OtherTask(FakeTask):
    """Has a parameter less."""

    def init_boxed(self, key):
        params = super().init_boxed(key)
        return dict(params, model={k: v for k, v in params["model"].items() if k != "bias"})


def test_user_mistakes(tmp_path):
    with pytest.raises(UserError, match="batch_size: expected a multiple of 3 .*found 16"):
        go(tmp_path, accumulate=3, mesh=dict(data=1, fsdp=1, tensor=1)) if len(jax.devices()) == 1 else go(
            tmp_path, accumulate=3
        )
    with pytest.raises(UserError, match="data: expected a batch for step 2, found the end of the data"):
        go(tmp_path, stream=lambda start: iter([batch_at(0)]))
    with pytest.raises(UserError, match="keep: expected a whole number from 1"):
        go(tmp_path, keep=0)


@pytest.mark.parametrize(
    "at, kind",
    [
        (5, UserError),
        *(
            pytest.param(*x, marks=pytest.mark.slow)
            for x in ((6, UserError), (6, MemoryError), (8, UserError))
        ),
    ],
)
def test_an_error_of_the_data_loses_no_step(tmp_path, uninterrupted, at, kind):
    """Whether the steps before were recorded (every 2), saved (every 4) or neither; and the run goes on as it was."""

    def broken(start):
        for _, batch in zip(range(start, at), batches(start)):
            yield batch
        raise kind("image 7: broken")

    with pytest.raises(kind, match="image 7"):
        go(tmp_path, stream=broken, steps=22)
    assert saved_steps(tmp_path / "checkpoints")[-1] == at
    rows = metrics.read(tmp_path / metrics.FILE)
    assert rows[-1]["step"] == at and np.isfinite(rows[-1]["loss"])
    again = go(tmp_path, steps=22)
    assert_same(again.state, uninterrupted[1].state)


def test_an_error_of_the_first_batch_saves_nothing(tmp_path):
    def broken(start):
        raise UserError("image 7: broken")
        yield

    with pytest.raises(UserError, match="image 7"):
        go(tmp_path, stream=broken)
    assert saved_steps(tmp_path / "checkpoints") == []


def test_metrics_file_survives_a_cut_line(tmp_path):
    (tmp_path / metrics.FILE).write_text(
        '{"step": 2, "seconds": 1.5}\n{"step": 4, "seconds": 3}\n{"step": 6, "sec'
    )
    with metrics.Metrics(tmp_path, steps=9, batch_size=2, start_step=2, shown=True) as record:
        record.advance(3)
        record.write(3, dict(loss=1.0))
    rows = metrics.read(tmp_path / metrics.FILE)
    assert [row["step"] for row in rows] == [2, 3] and rows[1]["seconds"] >= 1.5


def test_grid():
    images = np.stack([np.full((2, 3, 1), v) for v in (-1.0, 0.0, 1.0, 2.0, np.nan)])
    picture = metrics.grid(images)
    assert picture.shape == (4, 9, 3) and picture.dtype == np.uint8
    assert [int(picture[0, x, 0]) for x in (0, 3, 6)] == [0, 128, 255]
    assert [int(picture[2, x, 2]) for x in (0, 3, 6)] == [255, 128, 0]


def test_grid_of_clips():
    """One below the other, frame after frame."""
    clips = np.random.default_rng(0).uniform(-1, 1, (3, 4, 5, 6, 1)).astype(np.float32)
    picture = metrics.grid(clips)
    assert picture.shape == (3 * 5, 4 * 6, 3)
    np.testing.assert_array_equal(picture[5:10, 12:18], metrics.grid(clips[1, 2:3]))


def test_put_batch_keeps_rows_in_order():
    mesh = sharding.make_mesh()
    batch = batch_at(0)
    np.testing.assert_array_equal(sharding.put_batch(batch, mesh)["image"], batch["image"])


@pytest.mark.slow
def test_two_processes_train_together(tmp_path):
    """They stop together when one gets SIGTERM, go on together, and give what one process gives."""

    def both(steps, sigterm_at):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        script = pathlib.Path(__file__).parent / "two_process_worker.py"
        environment = dict(os.environ, JAX_PLATFORMS="cpu")
        commands = [
            [sys.executable, str(script), str(tmp_path / "two"), *map(str, (port, i, steps, sigterm_at))]
            for i in range(2)
        ]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        processes = [subprocess.Popen(command, **pipes) for command in commands]
        outputs = [process.communicate(timeout=200) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        return [out.split("\n")[-2] for out, _ in outputs]

    first, second = both(steps=400, sigterm_at=20)
    assert first == second and first.startswith("stopped")
    step = int(first.split()[1])
    assert 20 <= step < 400
    assert both(steps=step + 2, sigterm_at=0) == ["finished", "finished"]
    rows = metrics.read(tmp_path / "two" / metrics.FILE)
    assert rows[-1]["step"] == step + 2
    # The schedule depends on the number of steps, so both runs are given the same ones as far as they compare.
    alone = go(tmp_path / "one", task=FakeTask(noise=0.0), steps=400, stream=sigterm_at(19))
    others = metrics.read(tmp_path / "one" / metrics.FILE)
    for row, other in zip(rows[:9], others[:9], strict=True):
        np.testing.assert_allclose(row["loss"], other["loss"], rtol=1e-4)
    assert alone.stopped_by == signal.SIGTERM
