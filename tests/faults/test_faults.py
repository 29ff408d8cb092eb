"""Four hundred injected failures: no sample lost or repeated, parameters bit for bit as without any."""

import concurrent.futures

import pytest
import trials


@pytest.mark.slow
def test_four_hundred_failures(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(trials.run_system, system, tmp_path / system, 200) for system in trials.SYSTEMS]
        counts = [sum(sum(found.values()) for found in run.result().values()) for run in runs]
    assert sum(counts) >= 400
