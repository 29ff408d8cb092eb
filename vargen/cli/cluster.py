"""Several processes as one run: finding each other, and noticing when one is gone.

JAX's own client ends a process with a page of C++ when a peer is missing. So the processes meet here first, on the
coordinator's port, where every mistake is one line after a stated time; then they hold a line to process 0, over which
each says that it lives. A process that is silent for too long, or gone, ends the others with one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vargen.errors import Stopped, UserError

BEAT = 2.0  # seconds between two signs of life
SILENCE = 60.0  # seconds of silence after which a process counts as lost; VARGEN_PEER_TIMEOUT changes it
MOST = 100_000  # processes
GREETING = "vargen"
# Read where no flag is given.
VARIABLES = dict(
    coordinator="VARGEN_COORDINATOR", processes="VARGEN_NUM_PROCESSES", process="VARGEN_PROCESS_ID"
)


class Place(NamedTuple):
    """One process's place in a cluster.

    Attributes:
      coordinator: (host, port) of process 0.
      processes: how many there are.
      process: which this one is, from 0.
      devices: which of this machine's accelerators are its own; None for all.
    """

    coordinator: tuple[str, int]
    processes: int
    process: int
    devices: tuple[int, ...] | None = None


def place(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    environment: Mapping[str, str] = os.environ,
) -> Place | None:
    """This process's place, from flags, else from vargen's variables, Slurm's or Open MPI's.

    Returns:
      None where nothing tells it: on TPU slices JAX asks the machine itself.

    Raises:
      UserError: a value that is missing or doesn't fit.
    """
    given = dict(coordinator=coordinator, processes=processes, process=process)
    for name, variable in VARIABLES.items():
        if given[name] is None and environment.get(variable):
            text = environment[variable]
            given[name] = text if name == "coordinator" else _whole(variable, text)
    if any(value is not None for value in given.values()):
        flags = dict(coordinator="--coordinator", processes="--num-processes", process="--process-id")
        missing = [flags[name] for name, value in given.items() if value is None]
        if missing:
            raise UserError(
                f"cluster: expected {', '.join(flags.values())} together, found no {' and no '.join(missing)}"
            )
        return _checked(str(given["coordinator"]), int(given["processes"]), int(given["process"]), None)
    for found in (_slurm(environment), _open_mpi(environment)):
        if found is not None:
            return found
    return None


def _checked(coordinator: str, processes: int, process: int, devices: tuple[int, ...] | None) -> Place:
    host, _, port = coordinator.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise UserError(f"--coordinator: expected HOST:PORT, found {coordinator!r}")
    if not 1 <= processes <= MOST:
        raise UserError(f"--num-processes: expected 1 to {MOST}, found {processes}")
    if not 0 <= process < processes:
        raise UserError(f"--process-id: expected 0 to {processes - 1}, found {process}")
    return Place((host, int(port)), processes, process, devices)


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{name}: expected a whole number, found {text!r}")
    return int(text)


def _slurm(environment: Mapping[str, str]) -> Place | None:
    """Slurm's step: one process a node has all its accelerators, one of several the one with its local number."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    if "SLURM_JOB_ID" not in environment or "SLURM_PROCID" not in environment or not nodes:
        return None
    tasks = _whole(
        "SLURM_NTASKS", environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS", "1")
    )
    process = _whole("SLURM_PROCID", environment["SLURM_PROCID"])
    count = _whole(
        "SLURM_NNODES", environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES", "1")
    )
    port = 20000 + _whole("SLURM_JOB_ID", environment["SLURM_JOB_ID"]) % 20000
    local = _whole("SLURM_LOCALID", environment.get("SLURM_LOCALID", "0"))
    return _checked(f"{first_host(nodes)}:{port}", tasks, process, _own(local, tasks > count, environment))


def first_host(nodes: str) -> str:
    """The first host of Slurm's list: `gpu[003-007,9],cpu1` is gpu003."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?([^,\]]*\]([^,]*))?", nodes)
    if found is None:
        raise UserError(f"SLURM_JOB_NODELIST: expected a list of hosts, found {nodes!r}")
    return found[1] + (found[2] or "") + (found[4] or "")


def _open_mpi(environment: Mapping[str, str]) -> Place | None:
    """Open MPI's mpirun, whose first host's address is in its URI."""
    if "OMPI_COMM_WORLD_SIZE" not in environment:
        return None
    size = _whole("OMPI_COMM_WORLD_SIZE", environment["OMPI_COMM_WORLD_SIZE"])
    rank = _whole("OMPI_COMM_WORLD_RANK", environment.get("OMPI_COMM_WORLD_RANK", ""))
    local = _whole("OMPI_COMM_WORLD_LOCAL_RANK", environment.get("OMPI_COMM_WORLD_LOCAL_RANK", "0"))
    beside = _whole("OMPI_COMM_WORLD_LOCAL_SIZE", environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))
    uri = environment.get("OMPI_MCA_orte_hnp_uri", "") or environment.get("PMIX_SERVER_URI2", "")
    host = re.search(r"(?:tcp|tcp4)://\[?([0-9.]+)", uri)
    job = re.match(r"\D*(\d+)", uri)
    if host is None:
        raise UserError(
            "mpirun: expected its address in the environment, found none; give --coordinator HOST:PORT"
        )
    port = 20000 + int(job[1] if job else 0) % 20000
    return _checked(f"{host[1]}:{port}", size, rank, _own(local, beside > 1, environment))


def _own(local: int, several: bool, environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """Which accelerators are this process's, where several share a machine; those it is shown alone are all its own."""
    shown = environment.get("CUDA_VISIBLE_DEVICES", "")
    return (local,) if several and (not shown or "," in shown) else None


@contextlib.contextmanager
def joined(where: Place | None, timeout: float) -> Iterator[None]:
    """Makes this process one of a cluster's; JAX then sees the devices of all.

    Args:
      where: this process's place; None lets JAX ask the machine (TPU slices).
      timeout: seconds to wait for the others.

    Raises:
      UserError: a process is missing, another one is of another cluster, or the coordinator cannot be reached.
    """
    import jax

    if where is None:
        try:
            jax.distributed.initialize(initialization_timeout=int(timeout))
        except (ValueError, RuntimeError) as error:
            raise UserError(
                "cluster: expected a TPU slice, Slurm, mpirun, or --coordinator HOST:PORT --num-processes N "
                f"--process-id I, found none of them ({_line(error)})"
            ) from error
        yield
        return
    line = _meet(where, timeout)
    host, port = where.coordinator if where.process == 0 else _relay(where.coordinator)
    jax.distributed.initialize(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        where.processes,
        where.process,
        local_device_ids=where.devices,
        initialization_timeout=int(max(timeout, 60)),
        heartbeat_timeout_seconds=10 * int(_silence()),  # ours comes first
    )
    watch = threading.Thread(target=line.watch, daemon=True)
    watch.start()
    try:
        yield
    except BaseException as error:
        if not isinstance(error, (UserError, Stopped, KeyboardInterrupt)):
            time.sleep(2 * BEAT)  # it may be another process's end, of which `watch` then speaks
        line.end(_line(error))
        raise
    else:
        line.end("")


def _relay(coordinator: tuple[str, int]) -> tuple[str, int]:
    """A port of this machine from which bytes go to process 0 and back.

    JAX's client aborts the process, with its trace, as soon as its connection to process 0 is closed. Through the relay
    it isn't: when process 0 is gone the connection from here stays open, and `_Line` ends the process with its line.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[tuple[socket.socket, ...]] = []  # a socket that nobody holds is closed

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)

    def accept() -> None:
        while True:
            here, _ = listener.accept()
            there = _connected(coordinator)
            kept.append((here, there))
            for pair in ((here, there), (there, here)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return "127.0.0.1", listener.getsockname()[1]


def _connected(coordinator: tuple[str, int]) -> socket.socket:
    """A connection to process 0, whose service starts a moment after it was met."""
    while True:
        try:
            return socket.create_connection(coordinator)
        except OSError:
            time.sleep(0.05)


def leave(code: int) -> None:
    """Ends a process whose cluster broke, without JAX's wait for the others; does nothing on a single process."""
    if _Line.open is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class _Line:
    """The connections over which processes say that they live: process 0 to each, each to process 0."""

    open: _Line | None = None  # of this process, once it is one of several

    def __init__(self, where: Place, peers: dict[int, socket.socket]):
        self.where, self.peers = where, peers
        self.lock, self.ended = threading.Lock(), False
        _Line.open = self

    def send(self, text: str) -> None:
        with self.lock:
            for peer in self.peers.values():
                with contextlib.suppress(OSError):
                    peer.sendall(text.encode("utf-8", "replace") + b"\n")

    def end(self, reason: str) -> None:
        """Says goodbye, or why there is none to be said."""
        self.ended = True
        self.send(f"failed {reason}" if reason else "done")
        if not reason:
            _Line.open = None

    def watch(self) -> None:
        """Until the end: says that it lives, and ends the process when another is gone or silent."""
        heard = dict.fromkeys(self.peers, time.monotonic())
        buffers = dict.fromkeys(self.peers, b"")
        while not self.ended and heard:
            self.send(".")
            until = time.monotonic() + BEAT
            while (left := until - time.monotonic()) > 0 and heard:
                by_socket = {self.peers[i]: i for i in heard}
                for peer in select.select(list(by_socket), [], [], left)[0]:
                    i = by_socket[peer]
                    data = _received(peer)
                    heard[i], buffers[i] = time.monotonic(), buffers[i] + data
                    *lines, buffers[i] = buffers[i].split(b"\n")
                    if b"done" in lines:
                        del heard[i]
                        continue
                    failed = [x for x in lines if x.startswith(b"failed")]
                    if failed:
                        self.lost(i, f"ended: {failed[0].decode()[7:]}")
                    if not data:
                        self.lost(i, "is gone")
            for i, when in heard.items():
                if time.monotonic() - when > _silence():
                    self.lost(i, f"has not answered for {_silence():.0f} s")

    def lost(self, process: int, what: str) -> None:
        """Ends this process, and through process 0 all others, with one line."""
        if self.ended:
            return
        text = f"process {process} of {self.where.processes} {what}; start all of them again to go on"
        self.send(f"failed {text}")
        print(f"vargen: {text}", file=sys.stderr, flush=True)
        os._exit(2)


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(4096)
    except OSError:
        return b""


def _silence() -> float:
    text = os.environ.get("VARGEN_PEER_TIMEOUT", "")
    return float(text) if text.isascii() and text.isdigit() and int(text) else SILENCE


def _meet(where: Place, timeout: float) -> _Line:
    until = time.monotonic() + timeout
    if where.process:
        return _Line(where, {0: _greet(where, timeout, until)})
    return _Line(where, _receive(where, timeout, until))


def _receive(where: Place, timeout: float, until: float) -> dict[int, socket.socket]:
    """Process 0: connections of all others; refuses those that don't fit."""
    try:
        listener = socket.create_server(("", where.coordinator[1]), backlog=where.processes)
    except OSError as error:
        raise UserError(
            f"--coordinator: cannot listen on port {where.coordinator[1]}: {error.strerror}"
        ) from error
    peers: dict[int, socket.socket] = {}
    with listener:
        while len(peers) < where.processes - 1:
            left = until - time.monotonic()
            if left <= 0 or not select.select([listener], [], [], left)[0]:
                missing = [str(i) for i in range(1, where.processes) if i not in peers]
                some = ", ".join(missing[:8]) + ("..." if len(missing) > 8 else "")
                _tell(
                    peers,
                    error
                    := f"expected {where.processes} processes, found no process {some} in {timeout:g} s",
                )
                raise UserError(f"cluster: {error}")
            peer, _ = listener.accept()
            peer.settimeout(min(10.0, max(until - time.monotonic(), 0.1)))
            try:
                said = json.loads(peer.makefile().readline(200))
                greeting, processes, process = said
            except (OSError, ValueError, TypeError):
                peer.close()  # nobody of ours
                continue
            problem = ""
            if greeting != GREETING or processes != where.processes:
                problem = f"expected {where.processes} processes in all, found one started with {processes}"
            elif process in peers or process == 0:
                problem = f"expected every --process-id once, found {process} twice"
            if problem:
                _tell({**peers, -1: peer}, problem)
                raise UserError(f"cluster: {problem}")
            peers[process] = peer
    _tell(peers, "go")
    for peer in peers.values():
        peer.settimeout(10)
    return peers


def _greet(where: Place, timeout: float, until: float) -> socket.socket:
    """Another process: its connection to process 0, once all are there."""
    host, port = where.coordinator
    reason = "no answer"
    while (left := until - time.monotonic()) > 0:
        try:
            line = socket.create_connection(where.coordinator, timeout=min(left, 10.0))
            line.sendall((json.dumps([GREETING, where.processes, where.process]) + "\n").encode())
            line.settimeout(max(until - time.monotonic(), 0.1) + 5)
            answer = b""
            while not answer.endswith(b"\n") and (data := line.recv(1)):
                answer += data
            if answer == b"go\n":
                line.settimeout(10)
                return line
            if answer:
                raise UserError(f"cluster: {answer.decode().strip()}")
            reason = "it closed the connection"
        except socket.gaierror as error:
            reason = error.strerror or "unknown host"
        except OSError as error:
            reason = error.strerror or _line(error)
        time.sleep(min(0.5, max(until - time.monotonic(), 0)))
    raise UserError(
        f"--coordinator: expected process 0 at {host}:{port}, found none in {timeout:g} s ({reason})"
    )


def _tell(peers: Mapping[int, socket.socket], text: str) -> None:
    for peer in peers.values():
        with contextlib.suppress(OSError):
            peer.sendall(text.encode() + b"\n")


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
