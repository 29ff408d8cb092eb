"""Rules, meshes, and that a step on eight devices is the step on one."""

import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
import simulated
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from vargen import sharding
from vargen.errors import UserError

MESH = AbstractMesh((2, 2, 2), sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3)


@pytest.mark.parametrize(
    "names, shape, expected",
    [
        (("embed", "mlp"), (8, 16), P("fsdp", "tensor")),
        (("vocab", "embed"), (10, 8), P("tensor", "fsdp")),
        (("layers", "embed", "heads"), (3, 8, 4), P(None, "fsdp", "tensor")),
        (("embed", "mlp"), (7, 16), P(None, "tensor")),  # 7 isn't divisible by 2: replicated
        (("mlp", "heads"), (8, 8), P("tensor", None)),  # a mesh axis splits one axis at most
        ((None, "latent", "conv"), (8, 8, 8), P(None, None, None)),
        (("batch", "unheard of"), (8, 8), P(("fsdp", "data"), None)),
        ((), (), P()),
    ],
)
def test_spec(names, shape, expected):
    assert sharding.spec(names, shape, MESH) == expected


def test_make_mesh_checks_sizes():
    count = len(jax.devices())
    assert dict(sharding.make_mesh().shape) == dict(data=count, fsdp=1, tensor=1)
    with pytest.raises(UserError, match=f"fsdp={count + 1}.*found {count} devices"):
        sharding.make_mesh(fsdp=count + 1)
    with pytest.raises(UserError, match="at most one -1"):
        sharding.make_mesh(data=-1, fsdp=-1)


def test_boxes_become_shardings_in_the_unboxed_structure():
    mesh = sharding.make_mesh()
    boxed = dict(a=nn.LogicallyPartitioned(jax.ShapeDtypeStruct((4, 4), np.float32), ("embed", "mlp")))
    boxed["b"] = jax.ShapeDtypeStruct((3,), np.float32)
    shardings = sharding.param_shardings(boxed, mesh)
    assert jax.tree.structure(shardings) == jax.tree.structure(dict(a=0, b=0))


# Runs in a process of its own, for XLA reads the number of simulated devices once.
EIGHT = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import jax, numpy as np
from training_fakes import FROZEN, FakeTask, batch_at, settings
from vargen import sharding
from vargen.training import optimizer, state
from vargen.training.step import make_step

assert len(jax.devices()) == 8
task = FakeTask(noise=0.0)  # micro-batches draw other noise


def run(mesh, s):
    optimizers = optimizer.build(s, ["model", "discriminator"])
    train_state = state.create(task, optimizers, mesh, jax.random.key(1))
    where = state.shardings(task, optimizers, mesh)
    for array, sharding_ in zip(jax.tree.leaves(train_state), jax.tree.leaves(where)):
        assert array.sharding.is_equivalent_to(sharding_, array.ndim)
    step, rows = make_step(task, s, mesh), []
    frozen, key = jax.device_put((FROZEN, jax.random.key(2)), sharding.replicated(mesh))
    for k in range(3):
        batch = sharding.put_batch(batch_at(k), mesh)
        with jax.transfer_guard("disallow"):
            train_state, metrics = step(train_state, frozen, batch, key)
        rows.append(jax.device_get(metrics))
    for array, sharding_ in zip(jax.tree.leaves(train_state), jax.tree.leaves(where)):
        assert array.sharding.is_equivalent_to(sharding_, array.ndim)
    return train_state, rows


one, expected = run(sharding.make_mesh(devices=jax.devices()[:1]), settings())
for sizes, accumulate in [((8, 1, 1), 1), ((2, 2, 2), 2)]:
    mesh = sharding.make_mesh(*sizes)
    many, rows = run(mesh, settings(accumulate=accumulate))
    for a, b in zip(expected, rows):
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.params, many.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.ema, many.ema)
kernel = many.params["model"]["kernel"]
assert kernel.addressable_shards[0].data.shape == (2, 8, 8), kernel.addressable_shards[0].data.shape
moment = many.opt_state["model"][1].mu["kernel"]
assert moment.addressable_shards[0].data.shape == (2, 8, 8)
print("equal")
"""


def test_eight_devices_equal_one():
    here = pathlib.Path(__file__).parent
    code = EIGHT.format(tests=str(here / "training"), root=str(here.parent))
    environment = dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS=simulated.flags(8))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr[-3000:]
