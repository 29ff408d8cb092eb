"""Where devices split the batch and the parameters, parameters are sent, never the activations of a whole batch."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import simulated
from systems import SYSTEMS

QUICK = ["var"]
TESTS = pathlib.Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("names", [QUICK, sorted({*SYSTEMS} - {*QUICK})])
def test_nothing_larger_than_a_parameter_is_sent(names):
    """At once, of a step of 64 pictures on 2x4 devices: a device's share of activations is smaller, all are larger."""
    worker = pathlib.Path(__file__).parent / "gathers_worker.py"
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": simulated.flags(8),
    }
    run = subprocess.run([sys.executable, str(worker), *names], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.strip().splitlines()[-1])
    for name in names:
        assert found[name]["collectives"] > 10
        assert not found[name]["sent"], (name, found[name])
