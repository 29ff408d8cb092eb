"""A warm process that forks children, each of which runs one training command and may be made to fail.

    python server.py    reads one JSON order a line: dict(arguments, log, output, point, at, devices), starts it and
                        answers with its process id; "wait PID" answers with its exit code once it has ended

Everything is imported once; no backend of JAX is started before the fork.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time

import flax.linen  # noqa: F401
import grain  # noqa: F401
import jax
import numpy as np
import optax  # noqa: F401
import tensorboardX  # noqa: F401
from orbax.checkpoint import v1 as ocp

from vargen.cli import (  # noqa: F401
    main,
    preflight,  # noqa: F401
    stages,
)
from vargen.training import checkpoints, loop

LIMIT = 150.0  # seconds
POINTS = ("begin", "writing", "config", "manifest", "whole", "discard")
BETWEEN = ("codes", "codes stored", "generator")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch_samples(log: str) -> None:
    """Every batch that a step sees is written down: the step and a hash of its content."""
    following = loop._next

    def logged(stream, step):
        batch = following(stream, step)
        digest = hashlib.sha256()
        for name in sorted(batch):
            digest.update(np.ascontiguousarray(batch[name]).tobytes())
        with open(log, "a") as file:
            file.write(f"{'content' if 'content' in batch else 'image'}:{step} {digest.hexdigest()[:16]}\n")
        return batch

    loop._next = logged


def fail_while_saving(point: str, at: int) -> None:
    """Kills this process at a point of the first save of a step from `at` on."""
    armed = {"on": False}
    save, write, remove, begin = (
        ocp.save_checkpointables_async,
        checkpoints.paths.write_text,
        checkpoints._remove,
        checkpoints.Checkpoints.save,
    )

    def on_begin(self, state, metrics):
        armed["on"] = int(state.step) >= at
        if armed["on"] and point == "begin":
            die()
        begin(self, state, metrics)

    def on_save(path, items):
        response = save(path, items)
        if armed["on"] and point == "writing":
            die()
        return response

    def on_write(path, text):
        name = os.path.basename(path)
        if armed["on"] and (point, name) in (
            ("config", checkpoints.CONFIG),
            ("manifest", checkpoints.MANIFEST),
        ):
            die()
        write(path, text)
        if armed["on"] and point == "whole" and name == checkpoints.MANIFEST:
            die()

    def on_remove(path):
        if armed["on"] and point == "discard" and (path / checkpoints.MANIFEST).exists():
            (path / checkpoints.MANIFEST).unlink()
            die()
        remove(path)

    ocp.save_checkpointables_async = on_save
    checkpoints.paths.write_text = on_write
    checkpoints._remove = on_remove
    checkpoints.Checkpoints.save = on_begin


def fail_between_stages(point: str) -> None:
    """Kills this process while the codes are stored, when they are, or before the generator's first step."""
    from vargen.data import codes

    add, end = codes.Writer.add, codes.Writer.__exit__

    def on_add(self, content, labels):
        add(self, content, labels)
        if self.content[1:]:
            die()

    def on_end(self, *error):
        end(self, *error)
        die()

    if point == "codes":
        codes.Writer.add = on_add
    elif point == "codes stored":
        codes.Writer.__exit__ = on_end
    else:
        stages.GeneratorTask = lambda *parts: die()


def child(order: dict) -> None:
    """Runs the command in this process; never returns."""
    code = 70
    try:
        out = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        jax.config.update("jax_num_cpu_devices", order["devices"])
        watch_samples(order["log"])
        if order["point"] in POINTS:
            fail_while_saving(order["point"], order["at"])
        if order["point"] in BETWEEN:
            fail_between_stages(order["point"])
        code = main.main(order["arguments"])
    except SystemExit as error:
        code = error.code
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


def wait(pid: int) -> int:
    """The exit code of a child; 99 for one that has not ended after `LIMIT` seconds, and is killed."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 99


def serve() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        word, _, rest = line.partition(" ")
        if word == "wait":
            print(wait(int(rest)), flush=True)
            continue
        pid = os.fork()
        if not pid:
            child(json.loads(line))
        print(pid, flush=True)


if __name__ == "__main__":
    serve()
