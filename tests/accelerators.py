"""Compiling for accelerators that aren't there."""

import contextlib
import importlib.util
import os
import pathlib
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec


def _libtpu() -> str | None:
    """Where libtpu.so lies: named by the environment, beside the packages (`make test`), or among them."""
    beside = pathlib.Path(sys.prefix) / "libtpu" / "libtpu" / "libtpu.so"
    if os.environ.get("TPU_LIBRARY_PATH"):
        return os.environ["TPU_LIBRARY_PATH"]
    if beside.exists():
        return str(beside)
    found = importlib.util.find_spec("libtpu")
    return str(pathlib.Path(found.origin).parent / "libtpu.so") if found else None


@pytest.fixture(scope="session")
def tpu_devices():
    """Four TPU v5e cores to compile for."""
    library = _libtpu()
    if library is None:
        pytest.skip("libtpu is not installed; make test does that on Linux x86-64")
    os.environ.update(TPU_LIBRARY_PATH=library, TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices


@pytest.fixture(scope="session")
def compile_for_tpu(tpu_devices):
    """(function, *shapes) -> the program compiled for one TPU core."""
    sharding = NamedSharding(Mesh(np.array(tpu_devices[:1]), ("x",)), PartitionSpec())

    def run(function, *shapes):
        shapes = [jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding) for s in shapes]
        return jax.jit(function).lower(*shapes).compile()

    return run


@pytest.fixture(scope="session")
def lower_for_cuda():
    """(function, *shapes) -> the program's text lowered for an H100, without one."""
    context = contextlib.nullcontext
    if hasattr(jax.sharding, "AbstractDevice"):
        # Newer versions ask for the device already when lowering.
        device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
        mesh = AbstractMesh((1,), ("x",), abstract_device=device)
        context = lambda: jax.sharding.use_abstract_mesh(mesh)  # noqa: E731

    def run(function, *shapes):
        with context():
            return jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()

    return run
