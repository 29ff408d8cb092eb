"""How long `pictures32` and `pictures64` of each system take: the steps of both stages, interleaved.

    python -m benchmarks.picture_sizes

Seconds of a jitted step of the tokenizer and of the generator at the config's batch, on random pictures, in turn with
those of the other systems; and the minutes that the config's numbers of steps take at that rate. Writes
results/picture_sizes_<backend>.json.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from vargen import config, models
from vargen.sharding import make_mesh
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import GeneratorTask, TokenizerTask

SYSTEMS = ("llamagen", "var", "rar", "mar", "randar", "arpg")
ROUNDS = 6


def stages(name: str):
    """Both stages' jitted steps, as functions without arguments, and the config."""
    c = config.load(name)
    c.data.num_classes = 1
    tokenizer = models.build_tokenizer(c)
    generator, mesh = models.build_generator(c, tokenizer), make_mesh()
    key = jax.random.key(0)
    frozen = jax.jit(tokenizer.init)(key)
    size, batch = c.data.image_size, c.training.batch_size
    images = jax.random.uniform(key, (c.tokenizer_training.batch_size, size, size, 3), minval=-1)
    content = jax.jit(tokenizer.encode)(frozen, images)[:batch]
    labels = jnp.zeros(batch, jnp.int32)

    def stepping(task, settings, frozen, batch):
        run = make_step(task, settings, mesh)
        holder = [state.create(task, optimizer.build(settings, state.boxed(task)), mesh, key)]

        def once():
            holder[0], metrics = run(holder[0], frozen, batch, key)
            jax.block_until_ready(metrics)

        return once

    return c, {
        f"{name} tokenizer": stepping(
            TokenizerTask(tokenizer, c.tokenizer_training), c.tokenizer_training, {}, dict(image=images)
        ),
        f"{name} generator": stepping(
            GeneratorTask(generator, tokenizer),
            c.training,
            dict(quantizer=frozen["quantizer"]),
            dict(content=content, label=labels),
        ),
    }


def main() -> None:
    """Runs the benchmark; names of configs may be given instead."""
    names = sys.argv[1:] or [f"{s}:pictures{n}" for n in (32, 64) for s in SYSTEMS]
    runs, configs = {}, {}
    for name in names:
        configs[name], both = stages(name)
        runs |= both
    times, result = timing.interleaved(runs, ROUNDS), {}
    for name, c in configs.items():
        seconds = [times[f"{name} {stage}"]["warm"] for stage in ("tokenizer", "generator")]
        steps = [c.tokenizer_training.steps, c.training.steps]
        batches = [c.tokenizer_training.batch_size, c.training.batch_size]
        result[name] = dict(
            steps=steps,
            images_per_second=[b / s for b, s in zip(batches, seconds, strict=True)],
            minutes=[n * s / 60 for n, s in zip(steps, seconds, strict=True)],
            both_minutes=float(np.dot(steps, seconds)) / 60,
        )
    timing.save(f"picture_sizes_{jax.default_backend()}", dict(systems=result))


if __name__ == "__main__":
    main()
