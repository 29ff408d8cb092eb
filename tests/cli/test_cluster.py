"""Several processes find each other, or say in one line why not; and notice when one is gone."""

import os
import subprocess
import sys
import threading
import time

import pytest
from commands import free_port

from vargen.cli import cluster
from vargen.errors import UserError

SLURM = dict(SLURM_JOB_ID="71234", SLURM_PROCID="3", SLURM_NTASKS="8", SLURM_NNODES="2", SLURM_LOCALID="3")
SLURM |= dict(SLURM_STEP_NODELIST="gpu[07-08]")
MPI = dict(OMPI_COMM_WORLD_SIZE="4", OMPI_COMM_WORLD_RANK="2", OMPI_COMM_WORLD_LOCAL_RANK="0")
MPI |= dict(
    OMPI_COMM_WORLD_LOCAL_SIZE="2", OMPI_MCA_orte_hnp_uri="1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"
)


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, None),
        (SLURM, (("gpu07", 20000 + 71234 % 20000), 8, 3, (3,))),  # one process a GPU
        (
            dict(SLURM, CUDA_VISIBLE_DEVICES="3"),
            (("gpu07", 31234), 8, 3, None),
        ),  # Slurm shows it that one alone
        (dict(SLURM, SLURM_NTASKS="2", SLURM_PROCID="1", SLURM_LOCALID="0"), (("gpu07", 31234), 2, 1, None)),
        (MPI, (("10.96.0.1", 20000 + 1531576320 % 20000), 4, 2, (0,))),
        (
            dict(VARGEN_COORDINATOR="host:7", VARGEN_NUM_PROCESSES="3", VARGEN_PROCESS_ID="2"),
            (("host", 7), 3, 2, None),
        ),
    ],
)
def test_places_by_environment(environment, expected):
    found = cluster.place(None, None, None, environment)
    assert (None if found is None else tuple(found)) == expected


@pytest.mark.parametrize(
    "nodes, first",
    [
        ("a", "a"),
        ("a,b", "a"),
        ("gpu[003-007,9],cpu1", "gpu003"),
        ("r[1-2]n", "r1n"),
        ("x-01-[12,14]", "x-01-12"),
    ],
)
def test_the_first_host(nodes, first):
    assert cluster.first_host(nodes) == first


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("localhost:1", None, None), "--num-processes and no --process-id"),
        ((None, 2, 0), "found no --coordinator"),
        (("localhost", 2, 0), "--coordinator: expected HOST:PORT, found 'localhost'"),
        (("localhost:0", 2, 0), "expected HOST:PORT"),
        (("localhost:99999", 2, 0), "expected HOST:PORT"),
        (("localhost:١٢", 2, 0), "expected HOST:PORT"),
        ((":8080", 2, 0), "expected HOST:PORT"),
        (("localhost:80", 2, 2), "--process-id: expected 0 to 1, found 2"),
        (("localhost:80", 0, 0), "--num-processes: expected 1 to"),
    ],
)
def test_flags_that_do_not_fit(arguments, words):
    with pytest.raises(UserError, match=words):
        cluster.place(*arguments, environment={})


@pytest.mark.parametrize("name", ["VARGEN_NUM_PROCESSES", "VARGEN_PROCESS_ID"])
def test_variables_that_are_no_numbers(name):
    environment = dict(VARGEN_COORDINATOR="h:1", VARGEN_NUM_PROCESSES="2", VARGEN_PROCESS_ID="0") | {
        name: "two"
    }
    with pytest.raises(UserError, match=f"{name}: expected a whole number, found 'two'"):
        cluster.place(None, None, None, environment)


def meet(places, timeout=5.0):
    """What comes of several processes that meet, here as threads: the connections' count or the error's text."""
    found = [""] * len(places)

    def run(i):
        try:
            line = cluster._meet(places[i], timeout)
            found[i] = f"met {len(line.peers)}"
        except UserError as error:
            found[i] = str(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cluster._Line.open = None
    return found


def places(*pairs):
    port = free_port()
    return [cluster.Place(("localhost", port), n, i) for n, i in pairs]


def test_all_come():
    assert meet(places((3, 0), (3, 1), (3, 2))) == ["met 2", "met 1", "met 1"]


@pytest.mark.parametrize(
    "pairs, words",
    [
        ([(3, 0), (3, 2)], "expected 3 processes, found no process 1 in 1 s"),
        ([(2, 0), (3, 1)], "expected 2 processes in all, found one started with 3"),
        ([(3, 0), (3, 1), (3, 1)], "expected every --process-id once, found 1 twice"),
    ],
)
def test_mistakes_reach_everyone(pairs, words):
    for text in meet(places(*pairs), timeout=1.0):
        assert words in text, text


def test_nobody_there():
    started = time.monotonic()
    [text] = meet(places((2, 1)), timeout=1.0)
    assert "expected process 0 at localhost:" in text and "found none in 1 s" in text
    assert time.monotonic() - started < 5


WORKER = """
import os, sys, time
from vargen.cli import cluster
peers = cluster._meet(cluster.Place(("localhost", int(sys.argv[1])), 2, int(sys.argv[2])), 20)
print("met", flush=True)
if sys.argv[3] == "end":
    peers.end("")
elif sys.argv[3] == "fail":
    peers.end("a picture is broken")
elif sys.argv[3] == "sleep":
    time.sleep(60)
elif sys.argv[3] == "watch":
    peers.watch()
"""


@pytest.mark.parametrize(
    "kind, code, words",
    [
        ("end", 0, ""),
        ("fail", 2, "process 1 of 2 ended: a picture is broken; start all of them again"),
        ("exit", 2, "process 1 of 2 is gone"),
        ("sleep", 2, "process 1 of 2 has not answered for 3 s"),
    ],
)
def test_a_process_that_goes(kind, code, words):
    port = free_port()
    environment = dict(os.environ, VARGEN_PEER_TIMEOUT="3")

    def start(i, what):
        command = [sys.executable, "-c", WORKER, str(port), str(i), what]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    other, watching = start(1, kind), start(0, "watch")
    _, err = watching.communicate(timeout=40)
    other.kill()
    other.communicate()
    assert watching.returncode == code and err.count("\n") == (1 if words else 0), err
    assert words in err


WITH_JAX = """
import sys, time
from vargen.cli import cluster
from vargen.cli import failures

with failures.explained() as outcome:
    with cluster.joined(cluster.place(sys.argv[1], 2, int(sys.argv[2])), 60):
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("begun")
        print("begun", flush=True)
        if sys.argv[3] == "sleep":
            time.sleep(60)
        multihost_utils.sync_global_devices("ended")
sys.exit(outcome.code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_with_one_line(killed):
    """Also where it is process 0, whose end JAX's own client answers with its trace."""
    port = free_port()
    environment = dict(os.environ, JAX_PLATFORMS="cpu", VARGEN_PEER_TIMEOUT="20")

    def start(i, what):
        command = [sys.executable, "-c", WITH_JAX, f"localhost:{port}", str(i), what]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return subprocess.Popen(command, env=environment, **pipes)

    other, waiting = start(killed, "sleep"), start(1 - killed, "wait")
    assert any(line == "begun\n" for line in other.stdout)
    time.sleep(1)
    other.kill()
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 2
    lines = [line for line in err.splitlines() if "[Gloo]" not in line]
    assert lines == [f"vargen: process {killed} of 2 is gone; start all of them again to go on"], err
