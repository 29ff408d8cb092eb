"""Systems of every kind on eight simulated devices train as on one."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import simulated

QUICK, REST = ["var"], ["mar", "llamagen", "llamagen_text", "rar", "gla_chain", "acdit"]
TESTS = pathlib.Path(__file__).parent.parent


@pytest.mark.slow  # VAR: test_sharding.py
@pytest.mark.parametrize("names", [QUICK, REST])
def test_eight_devices_equal_one(names):
    worker = pathlib.Path(__file__).parent / "sharded_systems_worker.py"
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    run = subprocess.run(
        [sys.executable, str(worker), *names],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": simulated.flags(8)},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.strip().splitlines()[-1])
    for name in names:
        one, eight = found[f"{name}/1x1x1"], found[f"{name}/2x2x2"]
        np.testing.assert_allclose(eight["losses"], one["losses"], rtol=2e-5)
        np.testing.assert_allclose(eight["total"], one["total"], rtol=2e-5)
        assert one["split"] == 0 and eight["split"] > 5
