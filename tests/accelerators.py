"""Compiling for accelerators that aren't there."""

import contextlib

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from benchmarks import targets
from vargen.kernels import dispatch


@pytest.fixture
def tpu_devices():
    """Four TPU v5e cores to compile for."""
    yield from _devices("v5e:2x2")


@pytest.fixture
def gpu_devices():
    """One H100 to compile for."""
    yield from _devices("h100")


def _devices(target: str):
    try:
        yield targets.devices(target)
    except RuntimeError as error:
        pytest.skip(str(error))
    dispatch.lowered_for.set_global(())


@pytest.fixture
def compile_for_tpu(tpu_devices):
    """(function, *shapes) -> the program compiled for one TPU core."""
    sharding = NamedSharding(Mesh(np.array(tpu_devices[:1]), ("x",)), PartitionSpec())

    def run(function, *shapes):
        shapes = [jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding) for s in shapes]
        return targets.compiled(jax.jit(function).lower(*shapes))

    return run


@pytest.fixture
def lower_for_cuda():
    """(function, *shapes) -> the program's text lowered for an H100, without one; traced for `platforms`."""
    context = contextlib.nullcontext
    if hasattr(jax.sharding, "AbstractDevice"):
        # Newer versions ask for the device already when lowering.
        device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
        mesh = AbstractMesh((1,), ("x",), abstract_device=device)
        context = lambda: jax.sharding.use_abstract_mesh(mesh)  # noqa: E731

    def run(function, *shapes, platforms=("gpu",)):
        with context(), dispatch.lowered_for(platforms):
            return jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()

    return run
