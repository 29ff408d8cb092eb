"""Shared by the benchmarks: the device, interleaved timing, and where results go."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import re
import time
from collections.abc import Callable
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"
# Flags of /proc/cpuinfo and what they are called, the widest first.
INSTRUCTIONS = dict(avx512f="AVX-512", avx2="AVX2", avx="AVX", sse4_2="SSE4.2", sve="SVE", asimd="NEON")


def environment() -> dict[str, Any]:
    """The device, its cores and instruction set, and the versions of what was measured."""
    import jax

    from vargen.cli import env

    versions = {}
    for name in ("jax", "jaxlib", "flax", "torch", "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return dict(
        device=jax.devices()[0].device_kind,
        processor=env.processor(),
        instruction_set=instruction_set(_lines("/proc/cpuinfo"), os.environ.get("XLA_FLAGS", "")),
        cores=env.cores(),
        python=platform.python_version(),
        **versions,
    )


def instruction_set(cpuinfo: list[str], xla_flags: str) -> str:
    """The widest vector instructions of a processor, and to which XLA is limited if it is (the code that it emits, not
    its libraries' products).

    Args:
      cpuinfo: lines of /proc/cpuinfo.
      xla_flags: the environment's XLA_FLAGS.
    """
    names = next(
        (line.split(":")[1].split() for line in cpuinfo if re.match("(flags|Features)\\s*:", line)), []
    )
    widest = next((name for flag, name in INSTRUCTIONS.items() if flag in names), "unknown")
    limits = re.findall(r"--xla_cpu_max_isa=(\S+)", xla_flags)
    return f"{widest}, XLA's code at most {limits[-1]}" if limits else widest


def interleaved(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, Any]]:
    """Times each of `runs` once per round, in turn: the first round apart, then the best of the others.

    Returns:
      By name: `first` and `warm` in seconds, `all` seconds of the later rounds, `cpu_per_wall`, the cores that were
      really at work during the best (below the machine's, others were in the way), and `cpu`, the fewest seconds of
      processor time of a later round, which others disturb least.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    out = {}
    for name, ((first, _), *later) in times.items():
        wall, cpu = min(later)
        out[name] = dict(
            first=first,
            warm=wall,
            all=[t for t, _ in later],
            cpu_per_wall=cpu / wall,
            cpu=min(cpu for _, cpu in later),
        )
    return out


def save(name: str, result: dict[str, Any]) -> None:
    """Writes results/NAME.json, rounded, with the environment."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(dict(environment=environment(), **_rounded(result)), indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def _rounded(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _rounded(v) for k, v in x.items()}
    if isinstance(x, list):
        return [_rounded(v) for v in x]
    return float(f"{x:.4g}") if isinstance(x, float) else x


def _lines(path: str) -> list[str]:
    file = pathlib.Path(path)
    return file.read_text().splitlines() if file.exists() else []
