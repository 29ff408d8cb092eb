"""Commands of vargen's in processes of their own, several side by side, each on its share of the cores."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from vargen.errors import UserError

POLL = 0.05  # seconds


@dataclasses.dataclass
class Job:
    """Some commands, one after another.

    Attributes:
      name: for messages.
      commands: arguments of `vargen`, and whether they were done already.
      workdir: where they write.
      log: the file that has all that they say.
      needs: jobs that must have ended well before.
      enough: whether a command at work may stop, as by SIGTERM, since what it is for is there.
      failed: what became of it, in a line; "" while it has not failed.
      done: whether all commands ended well.
      seconds: that it took, this time.
    """

    name: str
    commands: Sequence[tuple[Sequence[str], Callable[[], bool]]]
    workdir: pathlib.Path
    log: pathlib.Path
    needs: Sequence[Job] = ()
    enough: Callable[[], bool] = lambda: False
    failed: str = ""
    done: bool = False
    seconds: float = 0.0

    def next(self) -> Sequence[str] | None:
        """The arguments of the first command that isn't done; None where all are."""
        return next((arguments for arguments, done in self.commands if not done()), None)


@dataclasses.dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    arguments: Sequence[str]
    cores: list[int] | None
    began: float
    stopped: bool = False


def run(
    jobs: Sequence[Job],
    count: int,
    environment: Mapping[str, str],
    on_end: Callable[[Job], None],
    watch: Callable[[Sequence[Job]], None] = lambda running: None,
) -> None:
    """Runs the jobs, `count` at once; one that fails leaves the others alone.

    However it ends, no process stays: those at work are told to stop, as by SIGTERM, and save what they have.

    Args:
      jobs: those that are done already are not begun.
      count: at least 1.
      environment: of the processes.
      on_end: called with each job as it ends.
      watch: called again and again with the jobs at work.
    """
    waiting, running, said = list(jobs), dict[int, _Running](), False
    try:
        while waiting or running:
            for slot in range(count):
                if slot in running:
                    _look(running, slot, environment, on_end)
                if slot not in running and (job := _startable(waiting, on_end)) is not None:
                    _start(running, slot, job, shares(count)[slot], environment, time.perf_counter(), on_end)
            if waiting and not running and not said:
                said = True
                print(f"waiting for what an earlier command left at work in {waiting[0].workdir}", flush=True)
            watch([one.job for one in running.values()])
            time.sleep(POLL)
    finally:
        for one in running.values():
            with contextlib.suppress(ProcessLookupError):
                one.process.terminate()
        for one in running.values():
            one.process.wait()


def shares(count: int) -> list[list[int] | None]:
    """The cores of each of `count` neighbours; None where a system doesn't say which there are."""
    if not hasattr(os, "sched_setaffinity"):
        return [None] * count
    cores = sorted(os.sched_getaffinity(0))
    return [cores[i::count] or [cores[i % len(cores)]] for i in range(count)]


def _startable(waiting: list[Job], on_end: Callable[[Job], None]) -> Job | None:
    """The first that may begin, taken out of those that wait; those that need one that failed fail too."""
    for job in list(waiting):
        if broken := next((j for j in job.needs if j.failed), None):
            waiting.remove(job)
            job.failed = f"{broken.name}: {broken.failed}"
            on_end(job)
        elif all(j.done for j in job.needs) and not held(job.workdir):
            waiting.remove(job)
            return job
    return None


def held(workdir: pathlib.Path) -> bool:
    """Whether another process is at work in a workdir, as the child of a command that was killed is for a while."""
    from vargen.cli import lock

    if not (workdir / lock.NAME).exists():
        return False
    try:
        with lock.hold(workdir, "vargen compare"):
            return False
    except UserError:
        return True


def _start(
    running: dict[int, _Running],
    slot: int,
    job: Job,
    cores: list[int] | None,
    environment: Mapping[str, str],
    began: float,
    on_end: Callable[[Job], None],
) -> None:
    """Begins what comes next of a job; where nothing does it has ended."""
    arguments = job.next()
    if arguments is None:
        job.done, job.seconds = True, time.perf_counter() - began
        on_end(job)
        return
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as log, _on(cores):
        print(f"$ vargen {' '.join(arguments)}", file=log, flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "vargen", *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    running[slot] = _Running(job, process, arguments, cores, began)


def _look(
    running: dict[int, _Running], slot: int, environment: Mapping[str, str], on_end: Callable[[Job], None]
) -> None:
    """Looks after a process: where it has ended the job goes on, or has failed."""
    one = running[slot]
    code = one.process.poll()
    if code is None:
        if not one.stopped and one.job.enough():
            one.stopped = True
            one.process.terminate()
        return
    del running[slot]
    job = one.job
    if job.next() is not one.arguments:  # it is done
        _start(running, slot, job, one.cores, environment, one.began, on_end)
        return
    job.failed = ending(code, job.log)
    job.seconds = time.perf_counter() - one.began
    on_end(job)


def ending(code: int, log: pathlib.Path) -> str:
    """How a command ended badly, in a line: by what signal, or the last line that it said."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines and not lines[-1].startswith("$ ") else "it said nothing"
    if code < 0:
        name = signal.Signals(-code).name
        memory = ", as where memory runs out" if -code == signal.SIGKILL else ""
        return f"killed by {name}{memory}; last: {last}"
    return last


@contextlib.contextmanager
def _on(cores: list[int] | None):
    """What is started inside runs on these cores."""
    if cores is None:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)
