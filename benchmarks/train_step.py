"""A training step of a small VAR beside the matrix products that it is made of.

    python -m benchmarks.train_step

Depth 4, width 256, levels to 8x8 (155 slots), batch 16: seconds of the jitted step (forward, backward, AdamW, EMA),
and of as many products of the same shapes alone, before it and after. Freed memory is kept for the next step, as the
commands do (a loop of one's own has GLIBC_TUNABLES for that). Writes results/train_step_<backend>.json. On a CPU that
others use too the ratio of processor times holds, best on one core: `taskset -c 0 python -m benchmarks.train_step`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks import timing
from vargen import config, malloc, models
from vargen.sharding import make_mesh
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import GeneratorTask

DEPTH, WIDTH, BATCH, LEVELS, VOCAB = 4, 256, 16, (1, 2, 3, 4, 5, 6, 8), 1024


def small_config():
    """VAR-d16's kind of block at a small size."""
    c = config.load("configs/var.py:d16")
    c.compute_dtype = "float32"
    c.data.image_size = 128
    c.tokenizer.levels, c.tokenizer.vocab, c.tokenizer.encoder.width = LEVELS, VOCAB, 32
    c.mixer.heads = WIDTH // 64
    c.model.update(dict(layers=DEPTH, width=WIDTH))
    c.training.update(dict(batch_size=BATCH, remat="none"))
    return c


def products(slots: int):
    """(rows, inner, columns, times) of the forward pass's products; attention's are per example and head."""
    rows, d, heads = BATCH * slots, WIDTH, WIDTH // 64
    seen = sum(h * h * sum(k * k for k in LEVELS[: i + 1]) for i, h in enumerate(LEVELS)) / slots**2
    dense = [(rows, d, 4 * d, 1), (rows, d, 8 * d, 1)]  # projections of attention; both of the MLP
    attention = [(slots, 64, slots, 2 * BATCH * heads * seen)]
    return [(m, k, n, t * DEPTH) for m, k, n, t in dense + attention] + [(rows, d, VOCAB, 1)]


def alone(shapes: list[tuple]) -> dict[str, float]:
    """Seconds of those products, forward and backward: by the clock ("warm") and of processor time ("cpu")."""
    total, multiply = dict(warm=0.0, cpu=0.0), jax.jit(jnp.matmul)
    for m, k, n, times in shapes:
        a, b = jnp.ones((m, k)), jnp.ones((k, n))
        product = timing.interleaved({"": lambda a=a, b=b: multiply(a, b).block_until_ready()}, 10)[""]
        total = {kind: seconds + 3 * times * product[kind] for kind, seconds in total.items()}
    return total


def main() -> None:
    """Runs the benchmark."""
    malloc.keep_freed()
    c = small_config()
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    slots = tokenizer.grid.size
    mesh = make_mesh()
    task = GeneratorTask(generator, tokenizer)
    frozen = jax.jit(tokenizer.init)(jax.random.key(0))
    start = state.create(task, optimizer.build(c.training, ["model"]), mesh, jax.random.key(1))
    step = make_step(task, c.training, mesh)
    key = jax.random.key(2)
    content = jax.random.randint(key, (BATCH, slots), 0, VOCAB)
    batch = dict(content=content, label=jnp.zeros(BATCH, jnp.int32))
    holder = [start]

    def run():
        holder[0], metrics = step(holder[0], frozen, batch, key)
        jax.block_until_ready(metrics)

    # Forward and backward are three products of each shape; their times are added up one by one.
    shapes = products(slots)
    before = alone(shapes)
    step = timing.interleaved({"step": run}, 10)["step"]
    floor = {kind: min(before[kind], seconds) for kind, seconds in alone(shapes).items()}
    flops = sum(6 * m * k * n * t for m, k, n, t in shapes)
    timing.save(
        f"train_step_{jax.default_backend()}",
        dict(
            depth=DEPTH,
            width=WIDTH,
            batch=BATCH,
            slots=slots,
            parameters=models.parameter_count(generator),
            step=step,
            products_alone=floor["warm"],
            products_alone_cpu=floor["cpu"],
            ratio_to_products=step["warm"] / floor["warm"],
            cpu_ratio_to_products=step["cpu"] / floor["cpu"],
            gflops_per_second=flops / step["warm"] / 1e9,
            gflops_per_cpu_second=flops / step["cpu"] / 1e9,
        ),
    )


if __name__ == "__main__":
    main()
