"""Where arrays live: one table from the logical axes that models name to the axes of a device mesh.

Models never mention devices. They box each parameter with the names of its axes
(`nn.with_logical_partitioning`); this module turns the boxes into shardings.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax.core import meta
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vargen.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes. An axis that is absent, or None, is replicated.
#
# The batch is split by fsdp first: with ("data", "fsdp") XLA's partitioner (jax 0.10.2 and 0.12.0, eight
# simulated CPU devices, mesh 2x2x2) silently gave wrong gradients for some random small networks; with
# ("fsdp", "data") for none that was tried. `tests/test_sharding.py` holds a step on that mesh against one device.
RULES: dict[str, tuple[str, ...] | None] = {
    "batch": ("fsdp", "data"),
    "embed": ("fsdp",),
    "mlp": ("tensor",),
    "heads": ("tensor",),
    "vocab": ("tensor",),
    "layers": None,  # scanned over: every device walks through all of them
    "latent": None,
    "conv": None,
}


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh with the axes `MESH_AXES`; one size may be -1 and takes what the others leave.

    Args:
      data: copies of the model that split the batch.
      fsdp: devices that split the batch and also the parameters.
      tensor: devices that split the inside of each layer.
      devices: which devices; all of them by default.

    Raises:
      UserError: the sizes don't multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = mesh_sizes(data, fsdp, tensor, len(devices))
    auto = (AxisType.Auto,) * len(MESH_AXES)  # Linen's logical boxes work under Auto axes only
    return jax.make_mesh(sizes, MESH_AXES, axis_types=auto, devices=devices)


def device_memory() -> int | None:
    """Bytes of memory of the first device of this process; on a CPU the machine's; None where nobody says."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def mesh_sizes(data: int, fsdp: int, tensor: int, devices: int, name: str = "mesh") -> tuple[int, int, int]:
    """The three sizes with -1 resolved for a number of devices.

    Raises:
      UserError: they don't multiply to it; the message calls them `name`.
    """
    sizes = [data, fsdp, tensor]
    free = [i for i, size in enumerate(sizes) if size == -1]
    fixed = math.prod(size for size in sizes if size != -1)
    wanted = f"{name} data={data} fsdp={fsdp} tensor={tensor}"
    if len(free) > 1 or fixed < 1 or any(size < -1 for size in sizes):
        raise UserError(f"{wanted}: expected positive sizes and at most one -1")
    if free:
        sizes[free[0]] = devices // fixed
    if math.prod(sizes) != devices:
        raise UserError(
            f"{wanted}: expected sizes that multiply to the number of devices, found {devices} devices"
        )
    return tuple(sizes)


def check_batch(batch_size: int, accumulate: int, devices: int, name: str = "batch_size") -> None:
    """Checks that a batch can be cut into pieces: one for each of the devices that split it, of each micro-batch.

    Raises:
      UserError: it can't; the message calls it `name`.
    """
    pieces = devices * accumulate
    if batch_size % pieces:
        raise UserError(
            f"{name}: expected a multiple of {pieces} (devices that split the batch x accumulate), found {batch_size}"
        )


def spec(names: Sequence[str | None], shape: Sequence[int], mesh: Any) -> PartitionSpec:
    """The partition of an array of `shape` whose axes have the logical `names`.

    An axis is replicated where its length isn't divisible by the mesh axes of its rule, and a mesh axis
    splits at most one axis of an array (the first that asks).
    """
    used: set[str] = set()
    parts: list[Any] = []
    for name, length in zip(names, shape, strict=True):
        axes = tuple(a for a in RULES.get(name) or () if mesh.shape[a] > 1 and a not in used)
        if not axes or length % math.prod(mesh.shape[a] for a in axes):
            parts.append(None)
            continue
        used.update(axes)
        parts.append(axes if len(axes) > 1 else axes[0])
    return PartitionSpec(*parts)


def per_shard(function: Callable, arrays: Sequence[jax.Array], names: Sequence, out_names: Any) -> Any:
    """`function(*arrays)`, under a mesh (`jax.set_mesh`) on every device with the part of the arrays that it has.

    Args:
      function: of arrays, the same along the axes that are split.
      arrays: its arguments.
      names: for each, the logical names of its axes.
      out_names: likewise for the results, in their structure (names are tuples of str and None).
    """
    mesh = jax.sharding.get_abstract_mesh()
    # Inside a shard_map arrays are parts already.
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return function(*arrays)
    out = jax.eval_shape(function, *arrays)
    out_names = (out_names,) if isinstance(out, jax.ShapeDtypeStruct) else out_names
    outs = [spec(n, o.shape, mesh) for n, o in zip(out_names, jax.tree.leaves(out), strict=True)]
    return jax.shard_map(
        function,
        in_specs=tuple(spec(n, x.shape, mesh) for n, x in zip(names, arrays, strict=True)),
        out_specs=jax.tree.unflatten(jax.tree.structure(out), outs),
        check_vma=False,
    )(*arrays)


def by_batch(tree: Any) -> Any:
    """Arrays [B, ...], under a mesh (`jax.set_mesh`) split by the batch; elsewhere, or if it can't be, as they are.

    XLA's partitioner follows what is near: behind a table or a map whose parameters are split it may split activations
    by their channels instead, and later gather a whole batch on every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return tree

    def split(x):
        parts = spec(("batch", *[None] * (x.ndim - 1)), x.shape, mesh)
        return jax.lax.with_sharding_constraint(x, parts) if any(parts) else x

    return jax.tree.map(split, tree)


def splits(name: str, length: int) -> bool:
    """Whether an axis of this length divides evenly among the devices that its name is split by, if any."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or length % _pieces(name, mesh) == 0


def axis_names(boxed: Any) -> Any:
    """The logical names of every leaf: a tree of tuples, `(None,) * ndim` for an unboxed leaf."""

    def names(leaf: Any) -> tuple[str | None, ...]:
        if isinstance(leaf, meta.AxisMetadata):
            return tuple(leaf.names)
        return (None,) * len(leaf.shape)

    return jax.tree.map(names, boxed, is_leaf=_is_box)


def param_shardings(boxed_abstract: Any, mesh: Mesh) -> Any:
    """Shardings of boxed shapes (`jax.eval_shape(init_boxed, key)`), in the unboxed structure."""

    def sharding(leaf: Any) -> NamedSharding:
        if not isinstance(leaf, meta.AxisMetadata):
            return replicated(mesh)
        return NamedSharding(mesh, spec(leaf.names, leaf.unbox().shape, mesh))

    return jax.tree.map(sharding, boxed_abstract, is_leaf=_is_box)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: the first axis over fsdp and data."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def batch_devices(mesh: Mesh) -> int:
    """In how many pieces the mesh splits a batch."""
    return _pieces("batch", mesh)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(mesh: Mesh, size: int) -> np.ndarray:
    """int [b]: which rows of a batch of `size` lie on this process's devices, in order.

    On one process, and so long as the mesh doesn't split the batch further than the process, that is all of them.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((size,)).values()
    return np.unique(np.concatenate([np.arange(size)[rows] for (rows,) in places]))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's rows of a batch (numpy, [b, ...]: `local_rows`) as global arrays [B, ...] on the mesh."""
    sharding = batch_sharding(mesh)

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        size = len(x) * _split_among_processes(mesh)
        rows = local_rows(mesh, size)

        def part(index: tuple) -> np.ndarray:
            first, last, _ = index[0].indices(size)
            at = np.searchsorted(rows, first)
            return x[at : at + last - first]

        return jax.make_array_from_callback((size, *x.shape[1:]), sharding, part)

    return jax.tree.map(put, batch)


def put_evenly(tree: Any, mesh: Mesh) -> Any:
    """Arrays [B, ...] that every process has alike, split as a batch where B divides evenly, else whole everywhere."""

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        even = len(x) % batch_devices(mesh) == 0
        where = batch_sharding(mesh) if even else replicated(mesh)
        return jax.make_array_from_callback(x.shape, where, lambda index: x[index])

    return jax.tree.map(put, tree)


def put_whole(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process has alike, whole on every device of the mesh."""
    if jax.process_count() > 1:  # an array that lies on this process's devices can't be moved to others'
        tree = jax.tree.map(np.asarray, tree)
    return jax.device_put(tree, replicated(mesh))


def _split_among_processes(mesh: Mesh) -> int:
    """Into how many shares of equal size the processes cut a batch: 1 where each has all of it."""
    pieces = batch_devices(mesh)
    return pieces // len(local_rows(mesh, pieces))


def _pieces(name: str, mesh: Any) -> int:
    return math.prod(mesh.shape[axis] for axis in RULES.get(name) or ())


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, meta.AxisMetadata)
