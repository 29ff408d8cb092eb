"""`vargen env`: what a report of a bug needs."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from typing import Any

from vargen.cli import common

SUMMARY = "print versions, devices and settings, for reports"
DESCRIPTION = """
Prints versions, devices, precision, caches and the variables that change how vargen runs; with --config or
--workdir also the config, with everything resolved.
"""
EXAMPLES = """\
  vargen env
  vargen env --config configs/var_digits.py --config.training.steps=200
"""

PACKAGES = (
    "vargen jax jaxlib flax optax orbax-checkpoint ml-collections numpy grain tensorflow-datasets etils pillow "
    "safetensors tensorboardX libtpu jax-cuda12-plugin jax-cuda13-plugin torch"
).split()
VARIABLES = tuple("JAX_ XLA_ VARGEN_ TPU_ LIBTPU CUDA_VISIBLE SLURM_PROCID SLURM_NTASKS LC_ALL LANG".split())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    common.add_config(parser, required=False, workdir=False)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> None:
    """Prints it."""
    found = environment()
    if args.config is not None or args.workdir is not None:
        from vargen.config import to_json

        found["config"] = json.loads(to_json(common.read_config(args)))
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}:")
            text = (
                json.dumps(value, indent=2)
                if name == "config"
                else "\n".join(f"{k}: {v}" for k, v in value.items())
            )
            print("\n".join(f"  {line}" for line in text.splitlines()))
        else:
            print(f"{name}: {value}")


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
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory=_memory(),
        devices=_devices(),
        precision=_precision(),
        cache=f"{cache} ({_size(cache)})",
        versions=versions,
        variables={k: v for k, v in sorted(os.environ.items()) if k.startswith(VARIABLES)},
    )


def _devices() -> str:
    try:
        import jax

        kinds = [d.device_kind for d in jax.devices()]
        counted = ", ".join(f"{kinds.count(k)} x {k}" for k in dict.fromkeys(kinds))
        return f"{jax.default_backend()}: {counted} in {jax.process_count()} process"
    except Exception as error:  # whatever a broken driver raises is what a report needs
        return f"none: {' '.join(str(error).split())}"


def _precision() -> str:
    try:
        from vargen import config
        from vargen.models import compute_dtype

        return f"compute_dtype auto is {compute_dtype(config.config()).__name__}"
    except Exception as error:  # likewise
        return f"unknown: {' '.join(str(error).split())}"


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
    return f"{count} files, {total / 2**20:.0f} MiB"
