"""Kernels on eight simulated devices, split by examples and heads."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import simulated

HERE = pathlib.Path(__file__).parent


@pytest.mark.slow
def test_eight_devices_equal_one():
    """Values and gradients within 2e-5 of the largest, under shard_map, as mixers call them, and merged."""
    run = subprocess.run(
        [sys.executable, str(HERE / "sharded_kernels_worker.py")],
        capture_output=True,
        text=True,
        env=os.environ
        | {"PYTHONPATH": str(HERE.parent.parent), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": simulated.flags(8)},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    errors = json.loads(run.stdout.strip().splitlines()[-1])
    assert len(errors) == 22
    assert max(errors.values()) < 2e-5, errors
