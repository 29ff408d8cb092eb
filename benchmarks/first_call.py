"""Seconds until a sampler at its paper's size can run: traced, and compiled for this machine's CPU or an H100.

    python -m benchmarks.first_call [NAME ...] [--target cpu --target h100]

Each in a fresh process, the CPU's twice: with an empty compilation cache, and with what the first left in it. Wall
seconds depend on what else the machine does; processor seconds hardly do, but count every thread. Writes
results/first_call.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks import compiled, targets, timing

NAMES = ("llamagen:b", "rar:b", "var:d16", "mar:b")


def one(name: str, target: str) -> dict[str, dict[str, float]]:
    """Seconds that tracing and compiling take here, by wall and by processor."""
    devices: Any = jax.devices("cpu") if target == "cpu" else targets.devices(target)
    c, tokenizer, generator = compiled.built(name, "float32" if target == "cpu" else "bfloat16")
    lowered, traced = _timed(lambda: compiled.sampler(c, tokenizer, generator, 1, devices))
    _, made = _timed(lambda: lowered.compile() if target == "cpu" else targets.compiled(lowered))
    return dict(trace=traced, compile=made)


def _timed(run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    wall, processor = time.perf_counter(), time.process_time()
    found = run()
    return found, dict(wall=time.perf_counter() - wall, processor=time.process_time() - processor)


def fresh(name: str, target: str, cache: str) -> dict[str, Any]:
    """`one` in a process of its own, with a folder of the compilation cache."""
    own = dict(
        JAX_PLATFORMS="cpu", JAX_COMPILATION_CACHE_DIR=cache, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0"
    )
    command = [sys.executable, "-m", "benchmarks.first_call", name, "--target", target, "--here"]
    run = subprocess.run(command, env=os.environ | own, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--target", action="append", choices=["cpu", "h100"])
    parser.add_argument("--here", action="store_true", help="one, in this process; only printed")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(one(args.names[0], args.target[0])))
        return
    results: dict[str, Any] = {}
    for name in args.names:
        for target in args.target or ("cpu", "h100"):
            with tempfile.TemporaryDirectory() as cache:
                found = dict(first=fresh(name, target, cache))
                if target == "cpu":
                    found["cached"] = fresh(name, target, cache)
            results.setdefault(name, {})[target] = found
            print(name, target, json.dumps(found), flush=True)
    timing.save("first_call", dict(systems=results))


if __name__ == "__main__":
    main()
