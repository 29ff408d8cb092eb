"""Products of an update, counted against counts by hand; what devices do at best."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import llamagen, var

from vargen import flops, models
from vargen.config import part
from vargen.kernels.step_attention import step_attention
from vargen.training import metrics, work
from vargen.training.tasks import GeneratorTask, TokenizerTask
from vargen.training.work import Work


def count(function, *shapes):
    return flops.products(
        jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).jaxpr
    )


def test_products():
    """A product in a loop of three, the larger of two branches, and a convolution."""
    one = 2 * 4 * 5 * 6
    assert count(jnp.matmul, (4, 5), (5, 6)) == one
    loop = lambda x, w: jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=3)[0]  # noqa: E731
    assert count(loop, (4, 5), (5, 5)) == 3 * 2 * 4 * 5 * 5
    branch = lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x[:, :6])  # noqa: E731
    assert count(branch, (4, 8), (8, 6)) == 2 * 4 * 8 * 6
    conv = lambda x, w: jax.lax.conv(x, w, (1, 1), "SAME")  # noqa: E731
    assert count(conv, (2, 3, 8, 8), (7, 3, 3, 3)) == 2 * 2 * 7 * 64 * 3 * 9


@pytest.mark.parametrize("n", [4, 40])
@pytest.mark.parametrize("implementation", [None, "gpu_interpret", "reference"])
def test_attention(n, implementation):
    """The pairs that see each other, each in two products, whatever computes them."""
    shape, steps = (2, n, 3, 8), np.arange(n)
    attend = lambda q, k, v: step_attention(q, k, v, steps, steps, implementation=implementation)  # noqa: E731
    assert count(attend, shape, shape, shape) == 2 * 2 * (2 * 3 * 8) * (n * (n + 1) // 2)


def test_generator():
    """LlamaGen with 16 slots, 2 layers of width 16, 4 heads and 2 of keys, SwiGLU of 64, 16 codes."""
    c = llamagen()
    tokenizer = models.build_tokenizer(c)
    task = GeneratorTask(models.build_generator(c, tokenizer), tokenizer)
    row = 2 * (16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 64)
    pairs = 4 * 16 * (16 * 17 // 2)
    assert task.work() == Work(3 * (2 * (16 * row + pairs) + 16 * 2 * 16 * 16), 16)


def test_tokenizer():
    """Both ways through the network, three times; images are what counts."""
    c = var()
    c.tokenizer = part("kl", encoder=part("patch", patch=4), channels=4)
    task = TokenizerTask(models.build_tokenizer(c), c.tokenizer_training)
    found = task.work()
    params = jax.eval_shape(task.tokenizer.init, jax.random.key(0))
    image = jnp.zeros((1, *task.tokenizer.image_size, task.tokenizer.image_channels))
    there = jax.make_jaxpr(lambda p: task.tokenizer.decode(p, task.tokenizer.encode(p, image)))(params)
    assert found == Work(3 * flops.products(there.jaxpr), 0) and found.flops > 0


def test_a_decoder_that_draws_counts_one_pass():
    """Its training takes one of the many that decoding takes."""
    c = var()
    counts = []
    for steps in (2, 50):
        decoder = part("flow", steps=steps)
        encoder = part("registers", tokens=4, patch=8, width=16, layers=1, heads=2, decoder=decoder)
        c.tokenizer = part("fsq", levels=(3, 3), encoder=encoder)
        counts.append(TokenizerTask(models.build_tokenizer(c), c.tokenizer_training).work().flops)
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "kind,peak",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", None),
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("cpu", None),
    ],
)
def test_peaks(kind, peak):
    assert work.peak(kind) == peak


class Device:
    device_kind = "TPU v4"


def test_records(tmp_path):
    """Of two chips of 275 TFLOP/s each, by images of 1 TFLOP; a tokenizer has no tokens."""
    for name, tokens in (("generator", 7), ("tokenizer", 0)):
        with metrics.Metrics(
            tmp_path / name, steps=2, batch_size=4, work=Work(1e12, tokens), devices=[Device()] * 2
        ) as record:
            record.write(2, dict(loss=1.0))
        (row,) = metrics.read(tmp_path / name / metrics.FILE)
        rate = row["images_per_second"]
        assert row["mfu"] == pytest.approx(rate / 550, rel=1e-3) and "gflop_per_second" not in row
        assert row.get("tokens_per_second") == (pytest.approx(7 * rate, rel=1e-3) if tokens else None)
