"""Compiling for a TPU that isn't there: libtpu's compiler needs no device."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def compiler(topology: str = "v5e:2x2") -> Callable:
    """(function, *shapes) -> the program compiled for one core of a TPU.

    Raises:
      RuntimeError: libtpu isn't installed.
    """
    beside = pathlib.Path(sys.prefix) / "libtpu" / "libtpu" / "libtpu.so"  # where `make test` puts it
    found = importlib.util.find_spec("libtpu")
    library = os.environ.get("TPU_LIBRARY_PATH") or (str(beside) if beside.exists() else None)
    if library is None and found is None:
        raise RuntimeError("libtpu is not installed")
    library = library or str(pathlib.Path(found.origin).parent / "libtpu.so")
    os.environ.update(TPU_LIBRARY_PATH=library, TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    sharding = NamedSharding(Mesh(np.array(devices[:1]), ("x",)), PartitionSpec())

    def run(function, *shapes):
        shapes = [jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding) for s in shapes]
        return jax.jit(function).lower(*shapes).compile()

    return run
