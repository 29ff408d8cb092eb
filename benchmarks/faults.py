"""Training that is made to fail hundreds of times, and whether it ends as if it had not: results/faults.json.

make test-faults            400 failures of two systems
python -m benchmarks.faults --failures 40
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import pathlib
import platform
import sys
import tempfile
import time

import jax
import orbax.checkpoint

import vargen

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "faults"))
import trials  # noqa: E402

RESULTS = pathlib.Path(__file__).parent / "results" / "faults.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--failures", type=int, default=400, help="of both systems together, about")
    failures = parser.parse_args().failures
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = {
            system: pool.submit(trials.run_system, system, pathlib.Path(folder) / system, failures // 2)
            for system in trials.SYSTEMS
        }
        found = {system: run.result() for system, run in runs.items()}
    counts = {system: {k: dict(v) for k, v in lineages.items()} for system, lineages in found.items()}
    flat = [
        (mode, n) for lineages in counts.values() for modes in lineages.values() for mode, n in modes.items()
    ]
    result = dict(
        failures=sum(n for _, n in flat),
        while_saving=sum(n for mode, n in flat if mode.startswith("saving")),
        on_two_processes=sum(n for mode, n in flat if mode.endswith("2 processes")),
        by_system=counts,
        compared="samples of every step (SHA-256), losses of every step, parameters and averages bit for bit",
        steps=trials.STEPS,
        save_every=trials.SAVE_EVERY,
        seconds=round(time.monotonic() - started),
        versions=dict(
            vargen=vargen.__version__,
            jax=jax.__version__,
            orbax=orbax.checkpoint.__version__,
            python=platform.python_version(),
        ),
    )
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['failures']} failures, {result['while_saving']} while saving; {RESULTS}")


if __name__ == "__main__":
    main()
