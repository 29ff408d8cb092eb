"""Tokenizers against every discriminator, and one of registers, on eight simulated devices train as on one."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import simulated

FOLDER = pathlib.Path(__file__).parent


# A simpler game on as many devices: tests/test_sharding.py.
@pytest.mark.slow
@pytest.mark.parametrize("names", [["patch"], ["registers", "stylegan", "dino"]])
def test_eight_devices_equal_one(names):
    """All metrics of three updates, parameters, and what is kept of the discriminators, 1e-4."""
    path = os.pathsep.join([str(FOLDER.parent.parent), str(FOLDER.parent), str(FOLDER)])
    run = subprocess.run(
        [sys.executable, str(FOLDER / "sharded_tokenizers_worker.py"), *names],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": simulated.flags(8)},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.strip().splitlines()[-1])
    for name in names:
        one, eight = found[f"{name}/1x1x1"], found[f"{name}/2x2x2"]
        for a, b in zip(one["rows"], eight["rows"], strict=True):
            assert a.keys() == b.keys() and a["discriminator_grad_norm"] > 0 and a["finite"] == 1
            for key in a:
                np.testing.assert_allclose(b[key], a[key], rtol=1e-4, atol=1e-5, err_msg=f"{name} {key}")
        for part in ("totals", "kept"):
            assert one[part].keys() == eight[part].keys()
            for key in one[part]:
                np.testing.assert_allclose(
                    eight[part][key], one[part][key], rtol=1e-4, atol=1e-5, err_msg=key
                )
        assert bool(one["kept"]) == (name != "stylegan")
