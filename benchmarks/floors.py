"""The least work that sampling needs, from its program alone: products, bytes read, and the seconds that these mean.

Counted are matrix products and convolutions (a multiplication and an addition are two FLOPs) and bytes at the compute
dtype, of every system by the same walk over the sampler's jaxpr (`reading`): the weights of products once per step, or
per pass where a step has several (a denoiser's, a transformer's over the codes of a slot), and the cached keys and
values of earlier steps. What needn't wait for contents, such as modulations, is made before: its weights count once,
and what it gives once per pass. Not counted: norms and biases, softmax, random numbers, activations, embedding tables,
VAR's running sum of levels. A step takes at least the longer of its products and its reading; steps follow one another.
Weights that stay in a processor's cache from one step to the next cost less than the reading says.

Our own sampling does more than that: LlamaGen and RAR multiply rows of the cache that are not there yet, MAR has
padding. The decoders' FLOPs hold products with a convolution's padding, which XLA's cost analysis leaves out.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import reading
from vargen.flops import products
from vargen.samplers import engine
from vargen.samplers.policies import alone
from vargen.samplers.step import advance


@dataclasses.dataclass(frozen=True)
class Work:
    """FLOPs and bytes read: float64 [T], one for each step, or [1]."""

    flops: np.ndarray
    bytes: np.ndarray

    def seconds(self, rates: dict[str, float]) -> float:
        """The least seconds at `rates` (see `measured_rates`)."""
        return float(np.sum(np.maximum(self.flops / rates["flops"], self.bytes / rates["bytes"])))


def sampling(generator, tokenizer, batch: int, settings) -> dict[str, Work]:
    """The work of sampling a batch with its images, as of `drawing`, and of the `decoder`."""
    return drawing(generator, tokenizer, batch, settings) | dict(
        decoder=_decoder(generator, tokenizer, batch)
    )


def drawing(generator, tokenizer, batch: int, settings) -> dict[str, Work]:
    """The work of drawing a batch of contents: of the `transformer`, which is all but the head, and of the `head`.

    Args:
      generator: a `Generator`.
      tokenizer: its tokenizer.
      batch: B.
      settings: `Sampling`; under guidance every row counts twice.
    """
    parts = {"transformer": None, "head": rf"{type(generator.head).__name__}\.(sample|start|refine)"}
    runs, work = _runs(generator, tokenizer, batch, settings, parts), {}
    for part in parts:
        flops, numbers, ahead = [], [], reading.Count()
        for count, first, last in runs:
            flops.append(np.linspace(first.flops[part], last.flops[part], count))
            numbers.append(np.linspace(first.numbers[part], last.numbers[part], count))
            before = sum(ahead.ahead[part].values())
            ahead.add(first)
            numbers[-1][0] += sum(ahead.ahead[part].values()) - before
        work[part] = Work(np.concatenate(flops), _itemsize(generator) * np.concatenate(numbers))
    return work


def report(work: dict[str, Work], rates: dict[str, float]) -> dict[str, Any]:
    """FLOPs, bytes and `floor_seconds`, by part and in all."""
    seconds = {name: w.seconds(rates) for name, w in work.items()}
    return dict(
        flops={name: float(w.flops.sum()) for name, w in work.items()},
        bytes={name: float(w.bytes.sum()) for name, w in work.items()},
        floor_seconds=dict(seconds, total=sum(seconds.values())),
    )


def _runs(generator, tokenizer, batch: int, settings, parts: dict[str, str | None]) -> list[tuple]:
    """Steps that are alike but for where they start: how many, and what the first and the last do; between them all
    grows evenly, as caches do. The first of all does also what comes before it.

    Steps are traced each by itself, of its own size, and through stacked layers, whose caches have the rows that are
    there and no others.
    """

    def begin(params, quantizer, labels, key):
        call, start = engine.begin(generator, params, quantizer, labels, key, settings)
        rows, cache = len(call.condition.prefix), None
        if generator.feed.cached:
            cache = {stage.name: stage.init_cache(params, rows, 0) for stage in generator.stages}
            cache["feed"] = generator.feed.init_cache(rows, 0)
        modulations = generator.modulations(params, call.condition)
        call = dataclasses.replace(call, params=params, modulations=modulations)
        return call, dataclasses.replace(start, cache=cache)

    def program(start, *args):
        call = begin(*args)[0]
        given, steps = alone(call.order, generator.feed, generator.ordering.proposes)

        def run(start, at, drawn):
            def step(decoding):
                return advance(call, decoding, at, drawn)

            return jax.jit(step)(start)

        for at in given:
            start = run(start, at, False)
            counts.append(1)
        for _, same in itertools.groupby(steps, _alike if generator.feed.cached else lambda step: step):
            first, *others = same
            after = run(start, first, True)
            counts.append(1 + len(others))
            if len(others) > 1:
                after = _skip(start, after, len(others))
            start = run(after, others[-1], True) if others else after
        return start

    counts: list[int] = []
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(generator.init, key)
    quantizer = jax.eval_shape(tokenizer.init, key)["quantizer"]
    labels = jax.eval_shape(
        lambda: jax.tree.map(lambda x: jnp.repeat(x, batch, 0), generator.condition.example())
    )
    args = (params, quantizer, labels, key)
    start = jax.eval_shape(lambda *args: begin(*args)[1], *args)
    jaxpr = jax.make_jaxpr(program)(start, *args).jaxpr
    cached = [path[0].name == "cache" for path, _ in jax.tree_util.tree_leaves_with_path(start)]
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    found = iter(reading.Walk(parts).steps(jaxpr, cached, names))
    return [(n, first := next(found), next(found) if n > 1 else first) for n in counts]


def _alike(step):
    """Equal for steps that differ in nothing but where they start."""
    return dataclasses.replace(step, index=0, start=0, most_known=0)


def _skip(before, after, count: int):
    """What a step changes, zeros: as much more than `after` the first of so many as that is more than `before`."""

    def last(a, b):
        return jnp.zeros([m + (count - 1) * (m - n) for n, m in zip(a.shape, b.shape, strict=True)], b.dtype)

    def skipped(before, after):
        return jax.tree.map(last, before, after)

    return jax.jit(skipped)(before, after)


def _decoder(generator, tokenizer, batch: int) -> Work:
    params = jax.eval_shape(tokenizer.init, jax.random.key(0))
    content = jax.eval_shape(lambda: tokenizer.slot.zeros(batch, tokenizer.grid.size))
    flops = products(jax.make_jaxpr(tokenizer.decode)(params, content).jaxpr)
    return Work(np.array([1.0 * flops]), np.array([1.0 * _itemsize(generator) * _size(params["decoder"])]))


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


def _itemsize(generator) -> int:
    """Bytes of a number at the compute dtype."""
    return jnp.dtype(generator.stages[0].block.dtype).itemsize


def _size(params) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))
