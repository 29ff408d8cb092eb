"""Step-masked attention where no accelerator is: it compiles for TPUs, lowers for CUDA, and says what can't run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernels.test_step_attention import inputs

from vargen.kernels import dispatch
from vargen.kernels.dropout import draw_words
from vargen.kernels.step_attention import call as core
from vargen.kernels.step_attention import shapes, step_attention


def dropped(shape, rate):
    """Options of dropout."""
    words = draw_words(jax.random.key(0), (shape.batch, shape.heads, shape.slots)) if rate else None
    return dict(dropout=rate, words=words)


# The sort of traced steps takes the longer to compile the more there are.
RANDOM = shapes.Shape(2, 4, 4, 64, shapes.random_orders(2, 512))


@pytest.mark.parametrize(
    "shape, rate",
    [
        pytest.param(shapes.SHAPES["var_256"], 0.0, marks=pytest.mark.slow),
        (shapes.SHAPES["causal_4096"], 0.0),
        (RANDOM, 0.0),
        (shapes.SHAPES["mar"], 0.1),
    ],
    ids=["var", "causal", "random", "dropout"],
)
def test_compiles_for_tpu(shape, rate, compile_for_tpu):
    """Forward and backward in bfloat16: three kernels, and no matrix of all pairs."""
    arrays = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in shape.shapes]
    traced = shape.steps.ndim == 2
    steps = [jax.ShapeDtypeStruct(shape.steps.shape, jnp.int32)] if traced else []

    def run(q, k, v, steps=shape.steps):
        return jnp.sum(step_attention(q, k, v, steps, steps, **dropped(shape, rate)).astype(jnp.float32))

    program = compile_for_tpu(jax.grad(run, (0, 1, 2)), *arrays, *steps)
    assert program.as_text().count('custom_call_target="tpu_custom_call"') == 3
    pairs = 2 * shape.batch * shape.heads * shape.slots**2
    assert program.memory_analysis().temp_size_in_bytes < pairs


def test_lowers_for_cuda(lower_for_cuda):
    for name, rate in (("var_256", 0.0), ("random_1024", 0.0), ("mar", 0.1)):
        shape = shapes.SHAPES[name]
        arrays = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in shape.shapes]
        steps = [jax.ShapeDtypeStruct(shape.steps.shape, jnp.int32)] if shape.steps.ndim == 2 else []

        def run(q, k, v, steps=shape.steps, shape=shape, rate=rate):
            found = step_attention(q, k, v, steps, steps, **dropped(shape, rate))
            return jnp.sum(found.astype(jnp.float32))

        assert lower_for_cuda(jax.grad(run, (0, 1, 2)), *arrays, *steps).count("triton") >= 3


def test_platforms_of_this_process(lower_for_cuda, monkeypatch):
    """Kernels are there for a GPU of this process, but for a T4, which can't run Pallas, and not without one."""

    class Device:
        def __init__(self, platform, capability=None):
            self.platform = platform
            if capability:
                self.compute_capability = capability

    shape = jax.ShapeDtypeStruct((1, 32, 1, 16), jnp.float32)
    call = functools.partial(step_attention, q_step=np.arange(32), k_step=np.arange(32))

    def kernels(*device, platforms=()):
        for cached in (dispatch._own.cache_clear, core._run.clear_cache):
            cached()
        with monkeypatch.context() as patch:
            patch.setattr(jax, "local_devices", lambda: [Device(*device)])
            dispatch._own()  # and keeps it
        text = lower_for_cuda(lambda *a: call(*a), shape, shape, shape, platforms=platforms)
        return text.count("triton")

    try:
        assert kernels("gpu", "8.0") > 0 and kernels("cpu", platforms=("gpu",)) > 0
        assert kernels("gpu", "7.5") == 0 == kernels("cpu")
    finally:
        dispatch._own.cache_clear()


def test_what_cannot_run_says_why():
    q, k, v, *_ = inputs(0, 1, 3, 2, 3, 2, 16)
    with pytest.raises(ValueError, match="does not fit"):
        step_attention(q, k, v, np.arange(3), np.arange(2))
    with pytest.raises(ValueError, match=r"k_step: expected shape \(2,\) or \(1, 2\), found \(3,\)"):
        step_attention(q, k[:, :, :1], v[:, :, :1], np.arange(3), np.arange(3))
    call = functools.partial(
        step_attention, q, k[:, :, :1], v[:, :, :1], q_step=np.arange(3), k_step=np.arange(2)
    )
    with pytest.raises(ValueError, match="one of xla, tpu, gpu.*found 'triton'"):
        call(implementation="triton")
    with pytest.raises(ValueError, match="'tpu' needs a program lowered for tpu, found cpu"):
        call(implementation="tpu")
    with pytest.raises(ValueError, match="'gpu' needs a program lowered for cuda, found cpu"):
        jax.jit(functools.partial(call, implementation="gpu"))()
    with pytest.raises(ValueError, match="'cudnn': expected bfloat16 or float16"):
        call(implementation="cudnn")
    half = (q.astype(jnp.bfloat16),) + (k[:, :, :1].astype(jnp.bfloat16),) * 2
    words = jnp.zeros((1, 3, 3), jnp.int32)
    with pytest.raises(ValueError, match=r"words: expected shape \(1, 3, 3\) for dropout 0.1, found None"):
        call(dropout=0.1)
    with pytest.raises(ValueError, match=r"words: expected none for dropout 0.0, found \(1, 3, 3\)"):
        call(words=words)
    with pytest.raises(ValueError, match="'cudnn' drops no weights"):
        call(dropout=0.1, words=words, implementation="cudnn")
    with pytest.raises(ValueError, match="'cudnn': expected static steps"):
        step_attention(*half, np.arange(3), np.arange(2), implementation="cudnn")
