"""A training step compiled for TPUs that aren't there: kernels run on every device's own part."""

import jax
import numpy as np
import pytest
from systems import gla_chain, llamagen, var

from vargen import models
from vargen.sharding import make_mesh
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import GeneratorTask


@pytest.mark.slow
@pytest.mark.parametrize(
    "base,kernels",
    [(llamagen, 3), *(pytest.param(*x, marks=pytest.mark.slow) for x in ((gla_chain, 6), (var, 3)))],
)
def test_a_step_on_four_tpus(base, kernels, tpu_devices):
    """On a 2x1x2 mesh (examples and heads split), in bfloat16; the kernels of one layer, which is scanned.

    Forward, and for attention and for linear attention two backward; the scan in `ssm_2d` runs again in the
    backward pass, and once in reverse.
    """
    c = base()
    c.compute_dtype = "bfloat16"
    c.tokenizer.encoder.patch = 2  # enough slots for kernels to pay
    if base is var:
        c.tokenizer.levels = (1, 2, 4, 8)
    c.training.update(dict(batch_size=8))
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    task = GeneratorTask(generator, tokenizer)
    mesh = make_mesh(2, 1, 2, devices=tpu_devices)
    step = make_step(task, c.training, mesh)
    optimizers = optimizer.build(c.training, ["model"])
    of_state = state.shardings(task, optimizers, mesh)
    now = jax.eval_shape(lambda k: state.initial(task, optimizers, k), jax.random.key(0))
    place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)  # noqa: E731
    now = jax.tree.map(place, now, of_state)
    frozen = jax.eval_shape(tokenizer.init, jax.random.key(0))
    batch = dict(
        content=jax.ShapeDtypeStruct((8, tokenizer.grid.size), np.int32),
        label=jax.ShapeDtypeStruct((8,), np.int32),
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    text = step.lower(now, frozen, batch, key).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == kernels
