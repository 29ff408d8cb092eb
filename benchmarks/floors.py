"""The least work that sampling needs, from sizes alone: products, bytes read, and the seconds that these mean.

Counted are matrix products and convolutions (a multiplication and an addition are two FLOPs) and bytes at the compute
dtype: every weight once per step (the denoiser's once per denoising step) and the cached keys and values of earlier
steps. Modulations need not wait for contents: their weights count once, and what they give once per step. Not counted:
norms, softmax, random numbers, activations, embedding tables, VAR's running sum of levels. A step takes at least the
longer of its products and its reading; steps follow one another. Weights that stay in a processor's cache from one
step to the next cost less than the reading says.

Our own sampling does more than that: LlamaGen and RAR multiply rows of the cache that are not there yet, MAR has
padding. The decoders' FLOPs hold products with a convolution's padding, which XLA's cost analysis leaves out.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.flops import products


@dataclasses.dataclass(frozen=True)
class Work:
    """FLOPs and bytes read: float64 [T], one for each step, or [1]."""

    flops: np.ndarray
    bytes: np.ndarray

    def seconds(self, rates: dict[str, float]) -> float:
        """The least seconds at `rates` (see `measured_rates`)."""
        return float(np.sum(np.maximum(self.flops / rates["flops"], self.bytes / rates["bytes"])))


def sampling(generator, tokenizer, batch: int, settings) -> dict[str, Work]:
    """The work of sampling a batch with its images: `transformer`, `head` and `decoder`.

    Args:
      generator: a `Generator` whose mixer is attention without a window.
      tokenizer: its tokenizer.
      batch: B.
      settings: `Sampling`; under guidance every row counts twice.
    """
    params = jax.eval_shape(generator.init, jax.random.key(0))
    sizes = generator.ordering.decoding(jax.random.key(0), batch, settings.steps).sizes
    times = batch * (2 if settings.guided else 1)
    itemsize = jnp.dtype(generator.stages[0].block.dtype).itemsize
    return dict(
        transformer=_transformer(generator, params, sizes, times, itemsize),
        head=_head(generator.head, params["head"], sizes, times, itemsize),
        decoder=_decoder(tokenizer, batch, itemsize),
    )


def report(work: dict[str, Work], rates: dict[str, float]) -> dict[str, Any]:
    """FLOPs, bytes and `floor_seconds`, by part and in all."""
    seconds = {name: w.seconds(rates) for name, w in work.items()}
    return dict(
        flops={name: float(w.flops.sum()) for name, w in work.items()},
        bytes={name: float(w.bytes.sum()) for name, w in work.items()},
        floor_seconds=dict(seconds, total=sum(seconds.values())),
    )


def _transformer(generator, params, sizes, times, itemsize) -> Work:
    feed, depths = generator.feed, {stage.name: stage.layers for stage in generator.stages}
    before = np.cumsum(sizes) - sizes
    if feed.cached:
        # The first step brings the condition's rows that come before those that predict.
        rows = sizes + np.where(before == 0, feed.length - feed.grid.size, 0)
        cached = np.cumsum(rows) - rows
        passes = dict.fromkeys(feed.stages, (rows, cached + rows))
    else:
        rows, cached = np.full(len(sizes), feed.buffer + feed.grid.size), np.zeros(len(sizes))
        passes = dict.fromkeys(feed.stages, (rows, rows))
        if len(feed.stages) > 1:
            known = feed.buffer + before
            passes[feed.stages[0]] = (known, known)
    # The feed's own maps: of contents, and between two stages.
    flops = 2.0 * times * passes[feed.stages[0]][0] * _kernels(params["feed"])
    numbers = np.full(len(sizes), 1.0 * _kernels(params["feed"]))
    for name, (rows, keys) in passes.items():
        layers = depths[name]
        query, key = (params[name]["mixer"][k]["kernel"].shape[-1] for k in ("query", "key"))
        inside = {k: v for k, v in params[name].items() if k != "modulation"}
        flops += 2.0 * times * rows * _kernels(inside)
        flops += 4.0 * times * rows * keys * query * layers  # q k' and p v
        numbers += _size(inside) + 2.0 * times * cached * key * layers
        # Modulations follow from the condition (and the place): all of them are made before the first step.
        modulation = [t["modulation"] for t in (params[name], params[f"{name}_norm"]) if "modulation" in t]
        each = rows if feed.modulates_rows else np.ones(1)
        flops[0] += 2.0 * times * each.sum() * _kernels(modulation)
        numbers[0] += _size(modulation)
        numbers += times * each * sum(_size(t["bias"]) for t in modulation)
    return Work(flops, itemsize * numbers)


def _head(head, params, sizes, times, itemsize) -> Work:
    if head.explicit:
        numbers = np.full(len(sizes), 1.0 * _size(params))
        return Work(2.0 * times * sizes * _kernels(params), itemsize * numbers)
    net = params["denoiser"]
    # Of times and hidden vectors, and so for all denoising steps at once: times are the same for all rows.
    ahead = {k: v for k, v in net.items() if k.startswith(("hidden", "time", "modulation"))}
    time_maps = _kernels([net["time_1"], net["time_2"]])
    each = _kernels(net) - _kernels(net["hidden"]) - time_maps
    flops = 2.0 * times * sizes * (_kernels(net["hidden"]) + head.sample_steps * each)
    flops += 2.0 * head.sample_steps * time_maps
    made = sum(_size(v["bias"]) for k, v in ahead.items() if k.startswith("modulation"))
    numbers = head.sample_steps * (_size(net) - _size(ahead) + times * sizes * made) + _size(ahead)
    return Work(flops, itemsize * numbers)


def _decoder(tokenizer, batch, itemsize) -> Work:
    params = jax.eval_shape(tokenizer.init, jax.random.key(0))
    content = jax.eval_shape(lambda: tokenizer.slot.zeros(batch, tokenizer.grid.size))
    flops = products(jax.make_jaxpr(tokenizer.decode)(params, content).jaxpr)
    return Work(np.array([1.0 * flops]), np.array([1.0 * itemsize * _size(params["decoder"])]))


def measured_rates(dtype: str) -> dict[str, float]:
    """What this device does at best: FLOP/s of a large matrix product in `dtype`, bytes/s of reading 256 MiB."""
    big = jax.default_backend() != "cpu"
    m, k, n = (8192, 8192, 8192) if big else (2048, 1024, 4096)
    a, b, x = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype), jnp.ones(1 << 26)
    return dict(flops=2 * m * k * n / _best(jnp.matmul, a, b), bytes=x.nbytes / _best(jnp.sum, x))


def _best(function, *args) -> float:
    """Seconds of a jitted call, the best of ten after the first."""
    run = jax.jit(function)
    run(*args).block_until_ready()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        run(*args).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _kernels(params) -> int:
    """Numbers in all kernels: the multiply-adds of one row through them (stacked layers count each)."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(math.prod(x.shape) for path, x in leaves if getattr(path[-1], "key", "") == "kernel")


def _size(params) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))
