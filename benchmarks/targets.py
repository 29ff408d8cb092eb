"""Accelerators that needn't be there: what they do at best, and devices to compile for.

`h100` is compiled for by JAX's plugin for CUDA, `v5e:2x2` and its like by libtpu; both on a CPU-only host. `make test`
puts them beside the packages (`.ci/install-compilers`), where programs that run don't see them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import pathlib
import sys
from typing import Any

import jax

from benchmarks.hlo import Device
from vargen.kernels import dispatch
from vargen.training.work import PEAKS

# FLOP/s: `PEAKS`. NVIDIA's data sheet (SXM5, NVLink in one direction) and its limits, as the CUDA driver tells them; a
# launch as measured in a captured graph. Google's data sheets: HBM, links of a chip between chips.
SHEETS = {
    "h100": Device(flops=PEAKS["h100"][0], bytes=3.35e12, launch=2.5e-6, links=450e9),
    "v5e": Device(flops=PEAKS["v5e"][0], bytes=819e9, launch=1e-6, links=200e9),
    "v5p": Device(flops=PEAKS["v5p"][0], bytes=2765e9, launch=1e-6, links=600e9),
    "v6e": Device(flops=PEAKS["v6e"][0], bytes=1640e9, launch=1e-6, links=448e9),
}
MEMORY = {"h100": 80e9, "v5e": 16e9, "v5p": 95e9, "v6e": 32e9}
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def sheet(target: str) -> Device:
    """What one device of a target (`h100`, `v5e:2x2`) does at best.

    Raises:
      ValueError: no such target.
    """
    name = target.partition(":")[0]
    if name not in SHEETS:
        raise ValueError(f"target: expected {', '.join(SHEETS)}, found {target!r}")
    return SHEETS[name]


def devices(target: str) -> list[Any]:
    """The devices of a target, to lay a mesh over: `h100` is one, `v5e:4x4` sixteen (a v5e alone: `v5e:2x2`'s first).
    From then on kernels are traced for its platform, see `dispatch.lowered_for`.

    Raises:
      RuntimeError: its compiler isn't installed.
      ValueError: no such target.
    """
    sheet(target)
    found = _gpu() if target == "h100" else _tpu(target)
    dispatch.lowered_for.set_global(("gpu",) if target == "h100" else ("tpu",))
    return found


def compiled(lowered: Any, options: dict[str, Any] | None = None) -> Any:
    """A lowered program, compiled; not kept in JAX's cache, which can't read what is for devices that aren't there."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, float("inf"))
    try:
        return lowered.compile(compiler_options=options)
    finally:
        jax.config.update(name, before)


def _beside(name: str) -> pathlib.Path:
    return pathlib.Path(sys.prefix) / name


@functools.cache
def _gpu() -> list[Any]:
    from jax.experimental import topologies

    describe = functools.partial(topologies.get_topology_desc, *("1x1x1", "cuda"), topology="1x1x1")
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        if not _beside("cuda").is_dir():
            raise RuntimeError("jax-cuda12-plugin is not installed; make test does that on Linux x86-64")
        jax.devices()  # the backends that there are start without it: nothing runs there
        sys.path.append(str(_beside("cuda")))
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
        importlib.import_module("jax_plugins.xla_cuda12").initialize()
    return describe(target_config=H100).devices


@functools.cache
def _tpu(topology: str) -> list[Any]:
    beside = _beside("libtpu") / "libtpu" / "libtpu.so"
    library = os.environ.get("TPU_LIBRARY_PATH") or (str(beside) if beside.exists() else None)
    if library is None:
        found = importlib.util.find_spec("libtpu")
        if found is None:
            raise RuntimeError("libtpu is not installed; make test does that on Linux x86-64")
        library = str(pathlib.Path(found.origin).parent / "libtpu.so")
    os.environ.update(TPU_LIBRARY_PATH=library, TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
