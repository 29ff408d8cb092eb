"""Training that is made to fail again and again, and what it comes to: samples seen, records, and final parameters.

A lineage is one workdir whose training is killed, started again, killed ... until it ends. Its samples (a hash of every
batch by step) must be those of a run that nobody disturbed, no step's lost or other than the first time, and its
parameters the same bit for bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE.parent / "cli")]

import commands  # noqa: E402

SYSTEMS = ("var", "mar")
STEPS, SAVE_EVERY, KEEP = 60, 3, 2
SAVING = ("begin", "writing", "config", "manifest", "whole", "discard")
BETWEEN = ("codes", "codes stored", "generator")  # points of the server between tokenizer and generator
SILENCE = 15  # seconds after which a process that hangs counts as lost
SIZES = "model.layers=2 model.width=16 mixer.heads=2 tokenizer_training.steps=6 tokenizer_training.save_every=3".split()


class Server:
    """The warm process that forks training commands."""

    def __init__(self, name: str, folder: pathlib.Path):
        self.folder = folder
        environment = dict(
            os.environ, JAX_PLATFORMS="cpu", VARGEN_PEER_TIMEOUT=str(SILENCE), TQDM_DISABLE="1"
        )
        # Programs are compiled once for all the processes.
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
        environment.update(JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0", JAX_DISABLE_MOST_OPTIMIZATIONS="1")
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE)])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / f"{name}.server.log").open("w"),
            text=True,
            env=environment,
        )
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, line: str) -> str:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def start(self, **order) -> int:
        return int(self.ask(json.dumps(order)))

    def wait(self, pid: int) -> int:
        return int(self.ask(f"wait {pid}"))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@dataclasses.dataclass
class Lineage:
    """One workdir, its processes and what was seen of it."""

    server: Server
    system: str
    workdir: pathlib.Path
    processes: int  # at the start; lineages of two devices change between one and two
    devices: int
    seed: int
    found: Counter = dataclasses.field(default_factory=Counter)
    starts: int = 0

    @property
    def name(self) -> str:
        return self.workdir.name

    def arguments(self) -> list[str]:
        config = str(ROOT / "configs" / f"{self.system}.py")
        groups = dict(steps=STEPS, save_every=SAVE_EVERY, keep=KEEP, log_every=1, schedule="constant")
        fields = [f"--config.training.{k}={v}" for k, v in groups.items()]
        tiny = [*commands.tiny(self.system), *(f"--config.{field}" for field in SIZES)]
        return ["train", "--config", config, "--workdir", str(self.workdir), *tiny, *fields]

    def launch(self, processes: int, point: str = "", at: int = 0, failing: int = 0) -> list[int]:
        """Starts the command in so many processes; process `failing` dies at the point."""
        self.starts += 1
        where = [
            "--coordinator",
            f"localhost:{_port()}",
            "--num-processes",
            str(processes),
            "--timeout",
            "60",
        ]
        pids = []
        for i in range(processes):
            more = [*where, "--process-id", str(i)] if processes > 1 else []
            pids.append(
                self.server.start(
                    arguments=self.arguments() + more,
                    log=str(self.log(i, processes)),
                    output=str(self.workdir.parent / f"{self.name}.out"),
                    devices=self.devices // processes,
                    point=point if i == failing else "",
                    at=at,
                )
            )
        return pids

    def log(self, process: int, processes: int) -> pathlib.Path:
        return self.workdir.parent / f"{self.name}.{process}of{processes}.samples"

    def step(self) -> int:
        """The last step that a whole checkpoint holds, as the manifests say."""
        folder = self.workdir / "generator" / "checkpoints"
        steps = [int(p.parent.name) for p in folder.glob("*/manifest.json") if p.parent.name.isdigit()]
        return max(steps, default=0)

    def samples(self) -> dict[str, set[str]]:
        """By process, stage and step: the hashes of the batches that it saw. More than one would be a fault."""
        seen: dict[str, set[str]] = {}
        for processes in (1, 2):
            for process in range(processes):
                log = self.log(process, processes)
                for line in log.read_text().splitlines() if log.exists() else []:
                    step, digest = line.split()
                    seen.setdefault(f"{process} of {processes}, {step}", set()).add(digest)
        return seen


def begin_after_tokenizer(lineage: Lineage, whole: Lineage) -> None:
    """Gives a lineage the tokenizer and the codes of the undisturbed run."""
    lineage.workdir.mkdir()
    for name in ("tokenizer", "codes"):
        shutil.copytree(whole.workdir / name, lineage.workdir / name)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def parameters(stages: list[tuple[pathlib.Path, str]]) -> list[str]:
    """Of each (workdir, stage): the last step and a hash of all parameters, averages and moments."""
    code = (
        "import sys, hashlib, jax, numpy as np\n"
        "from orbax.checkpoint import v1 as ocp\n"
        "from vargen.training import checkpoints\n"
        "where = jax.sharding.SingleDeviceSharding(jax.devices()[0])\n"
        "for folder in sys.stdin.read().splitlines():\n"
        "    path = checkpoints.last_whole(folder)\n"
        "    d, metadata = hashlib.sha256(), ocp.checkpointables_metadata(path).metadata\n"
        "    for item in ('params', 'ema', 'opt_state'):\n"
        "        like = jax.tree.map(\n"
        "            lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=where), metadata[item])\n"
        "        for x in jax.tree.leaves(ocp.load_checkpointables(path, {item: like})[item]):\n"
        "            d.update(np.asarray(x).tobytes())\n"
        "    print(path.name, d.hexdigest())"
    )
    environment = dict(os.environ, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    folders = "".join(f"{workdir / stage / 'checkpoints'}\n" for workdir, stage in stages)
    done = subprocess.run(
        [sys.executable, "-c", code], input=folders, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def losses(workdir: pathlib.Path) -> list[tuple[int, float]]:
    rows = commands.rows(workdir, "generator")
    return [(row["step"], row["loss"]) for row in rows]


def undisturbed(server: Server, system: str, folder: pathlib.Path, processes: int, devices: int) -> Lineage:
    """The run that others are compared with."""
    run = Lineage(server, system, folder / f"{system}.{devices}.whole", processes, devices, 0)
    for pid in run.launch(processes):
        code = server.wait(pid)
        assert code == 0, (code, (folder / f"{run.name}.out").read_text()[-2000:])
    return run


def disturbed(lineage: Lineage, failures: int, modes: list[str]) -> Counter:
    """Lets a lineage fail so many times, then finish; what failed how, by mode."""
    draw = random.Random(lineage.seed)
    server, number = lineage.server, 0
    while number < failures:
        mode = modes[number % len(modes)]
        # From two processes to one and back, so that every mode meets both.
        changed = lineage.devices > 1 and (number + number // len(modes)) % 2
        processes = 3 - lineage.processes if changed else lineage.processes
        if mode in ("kill one", "hang") and processes == 1:
            processes = 2
        if lineage.step() >= STEPS - SAVE_EVERY:
            _again(lineage)
        if fail(lineage, mode, processes, draw):  # else it ended before: once more
            lineage.found[f"{mode}, {processes} process{'es' if processes > 1 else ''}"] += 1
            number += 1
    pids = lineage.launch(lineage.processes)
    codes = [server.wait(pid) for pid in pids]
    assert codes == [0] * len(pids), (lineage.name, codes, _tail(lineage))
    return lineage.found


def _again(lineage: Lineage) -> None:
    """Near its end a lineage goes back to an early checkpoint, so that it can fail more often."""
    kept = lineage.workdir.parent / f"{lineage.name}.early"
    target = lineage.workdir / "generator"
    shutil.rmtree(target)
    shutil.copytree(kept, target)


def fail(lineage: Lineage, mode: str, processes: int, draw: random.Random) -> bool:
    """One failure, and what must be true of it; False where training came to its end instead."""
    server, before, said = lineage.server, lineage.step(), len(_tail(lineage, None))
    failed = True
    if mode.startswith(("saving ", "before ")):
        point = mode.partition(" ")[2]
        if point in BETWEEN:
            shutil.rmtree(lineage.workdir / "codes", ignore_errors=True)  # so that they are stored once more
        failing = draw.randrange(processes) if point in ("begin", "writing") else 0
        pids = lineage.launch(processes, point, before + SAVE_EVERY, failing)
        codes = [server.wait(pid) for pid in pids]
        assert codes[failing] == -signal.SIGKILL, (mode, codes, _tail(lineage))
        assert all(c == 2 for i, c in enumerate(codes) if i != failing), (mode, codes, _tail(lineage))
    else:
        pids = lineage.launch(processes)
        _until(lineage, before + draw.choice([0, 0, SAVE_EVERY]), pids)
        time.sleep(draw.uniform(0, 0.6))
        failed = _strike(lineage, mode, pids, draw)
    assert "Traceback" not in _tail(lineage, None)[said:], (mode, _tail(lineage))
    early = lineage.workdir.parent / f"{lineage.name}.early"
    if not early.exists() and lineage.step() >= SAVE_EVERY:
        shutil.copytree(lineage.workdir / "generator", early)
    assert lineage.step() >= before, (mode, before, lineage.step())
    return failed


def _strike(lineage: Lineage, mode: str, pids: list[int], draw: random.Random) -> bool:
    """Does what the mode says; whether any process failed by it."""
    server = lineage.server
    if mode == "kill all":
        for pid in pids:
            _send(pid, signal.SIGKILL)
        codes = [server.wait(pid) for pid in pids]
        assert all(code in (-signal.SIGKILL, 0, 2) for code in codes), codes
    elif mode == "kill one":
        _send(draw.choice(pids), signal.SIGKILL)
        codes = sorted(server.wait(pid) for pid in pids)
        assert codes in ([-signal.SIGKILL, 2], [0, 0]), (codes, _tail(lineage))
    elif mode == "sigterm":
        _send(draw.choice(pids), signal.SIGTERM)
        codes = [server.wait(pid) for pid in pids]
        # A signal that comes before jax.distributed listens ends that process alone, and the others through it.
        assert all(c == 143 for c in codes) or sorted(codes) == [2, 143] or codes == [0] * len(pids), (
            codes,
            _tail(lineage),
        )
    elif mode == "hang":
        hung = draw.choice(pids)
        _send(hung, signal.SIGSTOP)
        other = next(pid for pid in pids if pid != hung)
        started = time.monotonic()
        codes = [code := server.wait(other)]
        assert code in (2, 0), (code, _tail(lineage))
        assert time.monotonic() - started < 4 * SILENCE
        _send(hung, signal.SIGKILL)
        _send(hung, signal.SIGCONT)
        server.wait(hung)
    elif mode == "full disk":
        filler = lineage.workdir.parent / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"\0" * 65536)
        codes = [server.wait(pid) for pid in pids]
        filler.unlink()
        assert all(code in (2, 0) for code in codes), (codes, _tail(lineage))
    else:
        raise ValueError(mode)
    return any(codes)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _until(lineage: Lineage, step: int, pids: list[int]) -> None:
    """Until training has seen a batch after `step`, or a while has passed."""
    began = time.monotonic()
    logs = [lineage.log(i, n) for n in (1, 2) for i in range(n)]
    sizes = {log: log.stat().st_size if log.exists() else 0 for log in logs}
    while time.monotonic() - began < 40:
        for log in logs:
            if log.exists() and log.stat().st_size > sizes[log] + 20 * (1 if step else 0):
                return
        if not any(_running(pid) for pid in pids):
            return
        time.sleep(0.05)


def _running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _tail(lineage: Lineage, most: int | None = 1500) -> str:
    """What a lineage has printed, or the end of it."""
    file = lineage.workdir.parent / f"{lineage.name}.out"
    text = file.read_text(errors="replace") if file.exists() else ""
    return text if most is None else text[-most:]


def compare(lineage: Lineage, whole: Lineage) -> None:
    """No sample lost, or seen in another step; every loss and parameter the same."""
    expected, found = whole.samples(), lineage.samples()
    for step, digests in found.items():
        assert len(digests | expected.get(step, set())) == 1, (lineage.name, step)
    seen = {step.rpartition(":")[2] for step in found if "content" in step}
    assert {str(step) for step in range(1, STEPS + 1)} <= seen, lineage.name
    assert losses(lineage.workdir) == losses(whole.workdir), lineage.name
    assert [step for step, _ in losses(lineage.workdir)] == list(range(1, STEPS + 1))
    ours, theirs = parameters([(run.workdir, "generator") for run in (lineage, whole)])
    assert ours == theirs, lineage.name


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, megabytes: int = 24):
    """A file system of its own, of so many megabytes."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "vargen-faults", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


PLAN = {  # failures of each lineage of a system, out of 200
    "one process": (
        1,
        ["kill all", "sigterm", *(f"saving {point}" for point in SAVING), *(f"before {p}" for p in BETWEEN)],
        144,
    ),
    "two devices": (2, ["kill one", "kill all", "hang", "sigterm", "saving begin", "saving manifest"], 36),
    "full disk": (1, ["full disk"], 20),
}


def run_system(system: str, folder: pathlib.Path, failures: int) -> dict[str, Counter]:
    """All lineages of one system with about so many failures together; counts by mode.

    Raises:
      AssertionError: something was lost, repeated or other than undisturbed.
    """
    folder.mkdir(parents=True)
    server = Server(system, folder)
    found: dict[str, Counter] = {}
    try:
        whole = {devices: undisturbed(server, system, folder, devices, devices) for devices in (1, 2)}
        for name, (devices, modes, share) in PLAN.items():
            where = folder / name.replace(" ", "_")
            disk = small_disk(where) if name == "full disk" else contextlib.nullcontext(where)
            with disk:
                where.mkdir(exist_ok=True)
                lineage = Lineage(server, system, where / "w", devices, devices, seed=len(found))
                if name != "one process":  # which fails while the tokenizer trains, too
                    begin_after_tokenizer(lineage, whole[devices])
                count = max(len(modes), round(failures * share / 200))
                found[name] = disturbed(lineage, count, modes)
                compare(lineage, whole[devices])
            print(
                f"{system}, {name}: {sum(found[name].values())} failures, bit for bit as undisturbed",
                flush=True,
            )
    finally:
        server.close()
    return found
