"""Runs commands as their users type them, hundreds a minute: in forked children of one process with all imports done.

A child sees one command, with its output in files. The process that forks is one of its own, started by `Server`, in
which no backend of JAX is ever started: its threads would not survive the fork.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import NamedTuple

# As it is before tests that compile for a GPU add JAX's plugin to it, which warns where there is no GPU.
PATH = os.pathsep.join(filter(None, sys.path))


class Row(NamedTuple):
    """One command and what must come of it.

    Attributes:
      command: words, `interop.check` first for that module;
        {tmp} is the row's own folder, {model} a trained model, {config} its config, {data} pictures.
      words: what the line on stderr must name.
      code: the exit code; 0 for what is no mistake.
    """

    command: str
    words: tuple[str, ...] = ()
    code: int = 2


class Outcome(NamedTuple):
    code: int
    out: str
    err: str
    left: list[str]
    seconds: float


LIMIT = 90.0  # seconds


Snapshot = dict[str, tuple]


def snapshot(*roots: pathlib.Path) -> Snapshot:
    """What lies below: name -> size and time of a file, () for a folder."""
    found: Snapshot = {}
    folders = [os.fspath(root) for root in roots]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found[entry.path] = ()
                    folders.append(entry.path)
                else:
                    stat = entry.stat(follow_symlinks=False)
                    found[entry.path] = (stat.st_size, stat.st_mtime_ns)
    return found


def run(
    arguments: list[str], folder: pathlib.Path, roots: list[pathlib.Path], before: Snapshot
) -> tuple[Outcome, Snapshot]:
    """Runs `vargen ARGUMENTS` in a child, in `folder`; `before` and what comes back are what lies below `roots`."""
    out, err = folder.parent / f"{folder.name}.out", folder.parent / f"{folder.name}.err"
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            for number, file in ((1, out), (2, err)):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8")
            sys.stderr = os.fdopen(2, "w", encoding="utf-8")
            os.chdir(folder)
            if arguments[:1] == ["interop.check"]:
                from vargen.interop import check

                code = check.main(arguments[1:])
            else:
                from vargen.cli import main

                code = main.main(arguments)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - started > LIMIT:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return Outcome(-9, "", f"took more than {LIMIT} s", [], LIMIT), snapshot(*roots)
        time.sleep(0.005)
    seconds = time.monotonic() - started
    after = snapshot(*roots)
    left = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    text = [file.read_text(encoding="utf-8", errors="backslashreplace") for file in (out, err)]
    return Outcome(os.waitstatus_to_exitcode(status), *text, left, seconds), after


class Server:
    """The warm process."""

    def __init__(self) -> None:
        environment = dict(os.environ, PYTHONPATH=PATH)
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, arguments: list[str], folder: pathlib.Path, roots: list[pathlib.Path]) -> Outcome:
        """See `run`."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([arguments, str(folder), [str(r) for r in roots]]) + "\n")
        self.process.stdin.flush()
        return Outcome(*json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def warm() -> None:
    """Imports and traces what children would otherwise import and trace each by itself. No backend is started."""
    import flax.linen
    import grain
    import huggingface_hub.hf_api
    import optax
    import orbax.checkpoint
    import PIL.Image
    import tensorboardX
    from commands import ROOT, tiny
    from jax._src import xla_bridge

    import vargen.cli.stages
    import vargen.interop.checkpoint
    from vargen import config
    from vargen.cli import main, preflight
    from vargen.kernels import dispatch

    del flax, grain, huggingface_hub, optax, orbax, PIL, tensorboardX, vargen
    main.parser([])  # of all commands
    fields = [word.removeprefix("--config.").split("=", 1) for word in tiny("var")]
    c = config.load(ROOT / "configs" / "var.py", [*fields, ("compute_dtype", "float32")])
    looked, dispatch._own = dispatch._own, frozenset  # which would look at the devices
    preflight.check(c, devices=1)
    dispatch._own = looked
    assert not xla_bridge._backends, "expected no backend before the fork"


def serve() -> None:
    """What the warm process does: a row a line in, its outcome a line out."""
    warm()
    before: dict[tuple[str, ...], Snapshot] = {}
    for line in sys.stdin:
        arguments, folder, roots = json.loads(line)
        places = [pathlib.Path(r) for r in roots]
        known = before.pop(tuple(roots), None)
        outcome, after = run(
            arguments, pathlib.Path(folder), places, snapshot(*places) if known is None else known
        )
        if not outcome.left:  # else it may be cleared away before the next row
            before[tuple(roots)] = after
        print(json.dumps(outcome), flush=True)


def problem(row: Row, outcome: Outcome) -> str:
    """What is wrong with what came of a row, or ''."""
    err = outcome.err
    if outcome.code != row.code:
        return f"exit code {outcome.code}, expected {row.code}: {err[-600:]}"
    if not row.code:
        return ""
    if err.count("\n") != 1 or "Traceback" in err:
        return f"expected one line, found {err.count(chr(10))}: {err[-600:]}"
    missing = [word for word in row.words if word not in err]
    if missing:
        return f"expected {missing} in: {err.strip()}"
    if outcome.left:
        return f"left behind or changed: {', '.join(outcome.left[:4])}"
    return ""


if __name__ == "__main__":
    serve()
