"""Trains the fake task in processes of their own, which may kill themselves: WORKDIR STEPS MOMENT ...

One process for each moment, one after the other; all are forked from this one, which has everything imported. What it
prints last is a list of how they ended, as `subprocess` says it.

MOMENT: "never"; "batch:K", before step K; "writing:K", while orbax writes the checkpoint of step K;
"manifest:K", when the checkpoint lies there without its manifest; "discard:K", when an old checkpoint is half
deleted after step K.
"""

import json
import os
import pathlib
import shutil
import signal
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import grain  # noqa: E402, F401
import tensorboardX  # noqa: E402, F401
from jax._src import xla_bridge  # noqa: E402
from orbax.checkpoint import v1 as ocp  # noqa: E402
from training_fakes import CONFIG, FROZEN, FakeTask, batches, settings  # noqa: E402

from vargen.training import checkpoints  # noqa: E402
from vargen.training.loop import train  # noqa: E402


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def stream(start, fatal):
    for k, batch in enumerate(batches(start), start):
        if k + 1 == fatal:
            die()
        yield batch


def main(workdir, moment, steps):
    kind, _, at = moment.partition(":")
    fatal = int(at) if kind == "batch" else -1
    if kind == "manifest":
        write = checkpoints.paths.write_text

        def fatal_write(file, text):
            if file.name == checkpoints.MANIFEST and json.loads(text)["step"] == int(at):
                die()
            write(file, text)

        checkpoints.paths.write_text = fatal_write
    if kind == "discard":
        remove = checkpoints._remove

        def fatal_remove(path):
            if checkpoints.saved_steps(path.parent)[-1:] == [int(at)] and path.is_dir():
                (path / checkpoints.MANIFEST).unlink()
                shutil.rmtree(path / "params")
                die()
            remove(path)

        checkpoints._remove = fatal_remove
    if kind == "writing":
        save = ocp.save_checkpointables_async

        def fatal_save(path, items):
            response = save(path, items)
            if path.name == at:
                die()  # the state is copied, its files are being written
            return response

        ocp.save_checkpointables_async = fatal_save
    done = train(
        FakeTask(),
        FROZEN,
        lambda start: stream(start, fatal),
        workdir,
        CONFIG,
        settings(steps=steps),
        progress=False,
    )
    assert not done.stopped_by


if __name__ == "__main__":
    assert not xla_bridge._backends  # whose threads would not survive the fork
    ended = []
    for moment in sys.argv[3:]:
        sys.stdout.flush()
        if not (child := os.fork()):
            main(sys.argv[1], moment, int(sys.argv[2]))
            sys.exit()
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(ended))
