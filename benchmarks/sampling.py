"""Seconds per image at 256x256 with random weights: ours, and the authors' code where a checkout is given.

    python -m benchmarks.sampling --var-checkout ~/VAR --llamagen-checkout ~/LlamaGen --rounds 2

Writes results/sampling_<backend>.json. On a CPU: float32, as many threads as cores. The floor stated is what the
matrix products of transformer and decoder need at the rate of a large matrix product measured beside.
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import references, timing
from vargen import config, models


def build(name: str, dtype: str) -> models.Model:
    """A full-size model with random parameters."""
    c = config.load(name)
    c.compute_dtype = dtype
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    params = jax.jit(generator.init)(jax.random.key(0))
    return models.Model(c, jax.jit(tokenizer.init)(jax.random.key(1)), params)


def ours(model: models.Model, batch: int, options: dict) -> tuple:
    """A function that samples, and the seconds of its two halves the last time."""
    labels, split = np.arange(batch), {}

    def run():
        start = time.perf_counter()
        content, _ = model.generate(labels, 0, **options)
        jax.block_until_ready(content)
        middle = time.perf_counter()
        jax.block_until_ready(model.decode(content))
        split.update(transformer=middle - start, decoder=time.perf_counter() - middle)

    return run, split


def matmul_rate() -> float:
    """FLOP/s of a 2048 x 1024 x 4096 product in float32."""
    a, b = jnp.ones((2048, 1024)), jnp.ones((1024, 4096))
    product = jax.jit(jnp.matmul)
    product(a, b).block_until_ready()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        product(a, b).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * 2048 * 1024 * 4096 / min(seconds)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--var-checkout", default="", help="a checkout of FoundationVision/VAR")
    parser.add_argument("--llamagen-checkout", default="", help="a checkout of FoundationVision/LlamaGen")
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds after the first")
    parser.add_argument("--systems", default="var,llamagen")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    result = dict(matmul_gflops=matmul_rate() / 1e9)
    cases = dict(
        var=("configs/var_imagenet256.py:d16", 4, dict(guidance=1.5, top_k=900, top_p=0.95)),
        llamagen=("configs/llamagen_imagenet256.py:b", 2, dict(guidance=2.0)),
    )
    for system in args.systems.split(","):
        name, batch, options = cases[system]
        run, split = ours(build(name, args.dtype), batch, options)
        runs, splits = {"vargen": run}, {"vargen": split}
        checkout = getattr(args, f"{system}_checkout")
        if checkout:
            reference = getattr(references, system)(checkout, batch, **options)
            runs["authors"], splits["authors"] = reference.sample, reference.split
        times = timing.interleaved(runs, args.rounds)
        for who, t in times.items():
            t["seconds_per_image"] = t["warm"] / batch
            t["last_decoder"] = splits[who]["decoder"]
            t["last_transformer"] = t["all"][-1] - splits[who]["decoder"]
        result[system] = dict(config=name, batch=batch, dtype=args.dtype, options=options, **times)
        if checkout:
            result[system]["ratio_to_authors"] = times["vargen"]["warm"] / times["authors"]["warm"]
    timing.save(f"sampling_{jax.default_backend()}", result)


if __name__ == "__main__":
    main()
