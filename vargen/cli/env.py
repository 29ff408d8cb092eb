"""`vargen env`: what a report of a bug needs."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Mapping
from typing import Any

from vargen.cli import common, flags
from vargen.cli.failures import one_line
from vargen.spelling import counted

SUMMARY = "print versions, devices and settings, for reports"
DESCRIPTION = """
Prints versions, devices, precision, caches and the variables that change how vargen runs; with --config or
--workdir also the config, with everything resolved.
"""
EXAMPLES = """\
  vargen env
  vargen env --config var:digits --config.training.steps=200
"""

PACKAGES = (
    "vargen jax jaxlib flax optax orbax-checkpoint ml-collections numpy grain tensorflow-datasets etils pillow "
    "safetensors huggingface_hub tensorboardX libtpu jax-cuda12-plugin jax-cuda13-plugin torch"
).split()
SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL")  # in names of variables
VARIABLES = tuple(
    "JAX_ XLA_ VARGEN_ HF_ TPU_ LIBTPU CUDA_VISIBLE SLURM_PROCID SLURM_NTASKS LC_ALL LANG".split()
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    flags.add_config(parser, required=False, workdir=False, reads=True)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> None:
    """Prints it."""
    config = None
    if args.config is not None or args.workdir is not None:
        from vargen.config import to_json

        config = json.loads(to_json(common.read_config(args)))
    found = environment()
    if config is not None:
        found["config"] = config
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if name == "config":
            value = json.dumps(value, indent=2).splitlines()
        elif isinstance(value, dict):
            value = [f"{k}: {one_line(str(v))}" for k, v in value.items()]
        print(f"{name}: {value}" if isinstance(value, str) else "\n  ".join([f"{name}:", *value]))


def environment() -> dict[str, Any]:
    """Versions, machine, devices, caches and variables."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    return dict(
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        processor=processor(),
        cores=str(cores()),
        memory=_memory(),
        devices=_devices(),
        precision=_precision(),
        cache=f"{cache} ({_size(cache)})",
        versions=versions,
        variables=variables(os.environ),
    )


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that change how vargen runs; of those that are secrets, that they are set."""
    chosen = {k: v for k, v in sorted(environment.items()) if k.startswith(VARIABLES)}
    return {k: "(set)" if any(word in k.upper() for word in SECRET) else v for k, v in chosen.items()}


def processor(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """The processor's model; "" where the system doesn't say."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor()


def cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(devices: str, count: int, model: str) -> str:
    """A machine in words.

    Args:
      devices: accelerators, as `1 x NVIDIA H100`; "" where the processor does the work.
      count: of cores.
      model: the processor's.
    """
    words = " of ".join(filter(None, (counted(count, "CPU core"), model)))
    return f"{devices}, {words}" if devices else words


def _devices() -> str:
    try:
        import jax

        kinds = [d.device_kind for d in jax.devices()]
        counted = ", ".join(f"{kinds.count(k)} x {k}" for k in dict.fromkeys(kinds))
        return f"{jax.default_backend()}: {counted} in {jax.process_count()} process"
    except Exception as error:  # whatever a broken driver raises is what a report needs
        return f"none: {_line(error)}"


def _precision() -> str:
    try:
        from vargen import config
        from vargen.models import compute_dtype

        return f"compute_dtype auto is {compute_dtype(config.config()).__name__}"
    except Exception as error:  # likewise
        return f"unknown: {_line(error)}"


def _line(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def _size(directory: str) -> str:
    total = count = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.stat(os.path.join(folder, name)).st_size
                count += 1
            except OSError:
                continue
    return f"{counted(count, 'file')}, {total / 2**20:.0f} MiB"
