"""The least work of sampling: as a walk over the sampler finds it, and by closed formulas."""

import jax
import numpy as np
import pytest
from systems import SYSTEMS

from benchmarks import floors
from vargen import models
from vargen.samplers import Sampling

B, D, L = 3, 16, 2  # pictures; of tiny systems the width and the layers


def found(name: str, batch: int = B, **settings):
    """What `floors` finds, the generator's parameters, and how many slots each step draws."""
    c = SYSTEMS[name]()
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    settings = Sampling.make(**c.sampling.to_dict() | settings)
    params = jax.eval_shape(generator.init, jax.random.key(0))
    sizes = generator.ordering.decoding(jax.random.key(0), batch).sizes
    return floors.sampling(generator, tokenizer, batch, settings), params, sizes


def kernels(params) -> int:
    """Numbers of all kernels."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(x.size for path, x in leaves if path[-1].key == "kernel")


def agree(work, flops, numbers):
    """float64 [T]: FLOPs of each step, and numbers of 4 bytes that it reads; exactly."""
    np.testing.assert_array_equal(work.flops, np.asarray(flops, float))
    np.testing.assert_array_equal(work.bytes, 4.0 * np.asarray(numbers))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_llamagen(guidance):
    """16 steps of a row, of 4 heads and 2 of keys and values; without guidance a row of each picture, with it two."""
    work, params, _ = found("llamagen", guidance=guidance)
    rows, keys = B * (1 if guidance == 1 else 2), 1 + np.arange(16)
    weights, out = kernels(params["blocks"]), kernels(params["head"])
    attention = 4 * D * keys * L
    cache = rows * (keys - 1) * 2 * (D // 2) * L
    agree(work["transformer"], rows * (2 * weights + attention), weights + cache)
    agree(work["head"], np.full(16, 2 * rows * out), np.full(16, out))


def test_var():
    """1, 4 and 16 rows. Modulations, of the condition alone, are made once; each level reads what they give."""
    work, params, sizes = found("var", guidance=2.0)
    before = np.array([0, 1, 5])
    blocks = {k: v for k, v in params["blocks"].items() if k != "modulation"}
    last = params["blocks_norm"]["modulation"]
    modulation = kernels(params["blocks"]["modulation"])
    content = kernels(params["feed"]) * (
        before > 0
    )  # the first level has none; the same for both rows of a picture
    flops = 2 * kernels(blocks) * sizes + 4 * D * L * sizes * (before + sizes) + 2 * kernels(last)
    numbers = kernels(blocks) + content + 2 * B * (before * 2 * D * L + (L * 6 + 2) * D)
    first = np.array([1, 0, 0])
    flops, numbers = flops + first * 2 * modulation, numbers + first * (modulation + kernels(last))
    agree(work["transformer"], 2 * B * (flops + content * sizes), numbers)
    out = kernels(params["head"])
    agree(work["head"], 2 * 2 * B * out * sizes, np.full(3, out))


def test_mar():
    """An encoder of what is known, a decoder of all, both behind 2 rows; the denoiser's weights in each of 3 passes,
    its modulations made for all of them at once."""
    work, params, sizes = found("mar", batch=1, guidance=2.0)
    known = np.cumsum(sizes) - sizes
    flops = 2 * 2 * kernels(params["feed"]["content"]) * known
    flops = flops + 2 * 2 * kernels(params["feed"]["bridge"]) * (2 + known)
    numbers = kernels(params["feed"]["bridge"]) + kernels(params["feed"]["content"]) * (known > 0)
    for stage, rows in (("encoder", 2 + known), ("decoder", np.full(len(sizes), 18))):
        weights = kernels(params[stage])
        flops = flops + 2 * (2 * weights * rows + 4 * D * len(params[stage]["norm_1"]["scale"]) * rows**2)
        numbers = numbers + weights
    agree(work["transformer"], flops, numbers)
    net, width, passes = params["head"]["denoiser"], 8, 3
    hidden, time = kernels(net["hidden"]), kernels([net["time_1"], net["time_2"]])
    modulation = kernels([net["modulation_0"], net["modulation_out"]])
    each = kernels(net) - hidden - time
    flops = 2 * 2 * sizes * (hidden + passes * each) + 2 * passes * time
    made = passes * (
        width + 2 * sizes * 5 * width
    )  # of the time; shift, scale and gate, then shift and scale
    numbers = hidden + modulation + passes * (each - modulation) + made
    numbers[0] += time - passes * width  # as before there are contents nothing is made ahead of them
    agree(work["head"], flops, numbers)


def test_depth():
    """Its transformer's weights for each of 2 codes, and the map of vectors for the second."""
    work, params, _ = found("rqtransformer", guidance=1.0)
    head = params["head"]
    stage, out, inner = kernels(head["stage"]), kernels(head["out"]), kernels(head["inner"])
    numbers = 2 * (stage + out) + inner
    agree(work["head"], np.full(16, B * (2 * numbers + 4 * D * (1 + 2))), np.full(16, numbers))


def test_flow():
    """A transformer over the slots of a level, in each of 3 passes; what the time alone gives is known beforehand."""
    work, params, sizes = found("flowar", guidance=2.0)
    net, width, passes, rows = params["head"]["network"], 8, 3, 2 * B * sizes
    hidden, time = kernels(net["hidden"]), kernels([net["time_1"], net["time_2"]])
    modulation = kernels([net["block_0"]["modulation"], net["modulation_out"]])
    each = kernels(net) - hidden - time
    flops = 2 * rows * (hidden + passes * each) + passes * (4 * width * rows * sizes + 2 * time)
    numbers = hidden + modulation + passes * (each - modulation + width + rows * 8 * width)
    numbers[0] += time
    agree(work["head"], flops, numbers)
