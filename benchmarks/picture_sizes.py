"""How long `pictures32` and `pictures64` of each system take, by the steps of both stages.

    python -m benchmarks.picture_sizes [CONFIG ...]

Seconds of processor time of a jitted step of the tokenizer and of the generator at the config's batch, on random
pictures, in turn; and the minutes that the config's numbers of steps take at that rate, of one core. Writes
results/picture_sizes_<backend>.json: of the configs named, beside what it holds, or of all that have these sizes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from vargen import bundled, config, models
from vargen.errors import UserError
from vargen.sharding import make_mesh
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import GeneratorTask, TokenizerTask

ROUNDS = 3


def stages(name: str):
    """The config, and the jitted steps of the stages that it trains, as functions without arguments."""
    c = config.load(name)
    c.data.num_classes = 1
    tokenizer = models.build_tokenizer(c)
    generator, mesh = models.build_generator(c, tokenizer), make_mesh()
    key = jax.random.key(0)
    size, batch = c.data.image_size, c.training.batch_size
    first = c.tokenizer_training.batch_size if tokenizer.trained else batch
    images = jax.random.uniform(key, (max(first, batch), size, size, 3), minval=-1)
    frozen = jax.jit(tokenizer.init)(key) if tokenizer.trained else tokenizer.fit([images])
    content = tokenizer.stored(frozen, images[:batch])

    def stepping(task, settings, frozen, batch):
        run = make_step(task, settings, mesh)
        holder = [state.create(task, optimizer.build(settings, state.boxed(task)), mesh, key)]

        def once():
            holder[0], metrics = run(holder[0], frozen, batch, key)
            jax.block_until_ready(metrics)

        return once

    generating = GeneratorTask(generator, tokenizer)
    feeding = dict(quantizer=frozen["quantizer"]) if "quantizer" in frozen else {}
    labels = jnp.zeros(batch, jnp.int32)
    runs = dict(generator=stepping(generating, c.training, feeding, dict(content=content, label=labels)))
    if tokenizer.trained:
        coding = TokenizerTask(tokenizer, c.tokenizer_training)
        runs["tokenizer"] = stepping(coding, c.tokenizer_training, {}, dict(image=images[:first]))
    return c, runs


def systems() -> list[str]:
    """The configs that have sizes for people's own pictures."""
    found = []
    for system in bundled.names():
        for size in ("pictures32", "pictures64"):
            try:
                config.load(f"{system}:{size}")
            except UserError:
                continue
            found.append(f"{system}:{size}")
    return found


def main() -> None:
    """Runs the benchmark; names of configs may be given instead."""
    out = f"picture_sizes_{jax.default_backend()}"
    file = timing.RESULTS / f"{out}.json"
    result: dict[str, Any] = json.loads(file.read_text())["systems"] if sys.argv[1:] and file.exists() else {}
    for name in sys.argv[1:] or systems():
        c, runs = stages(name)
        times, rows = timing.interleaved(runs, ROUNDS), {}
        for stage in runs:
            settings = c.training if stage == "generator" else c.tokenizer_training
            # Not the clock's: on one core, where others may be at work too.
            seconds = times[stage]["warm"] * times[stage]["cpu_per_wall"]
            rows[stage] = dict(
                steps=settings.steps,
                batch=settings.batch_size,
                cpu_seconds_per_step=seconds,
                cpu_minutes=settings.steps * seconds / 60,
            )
        result[name] = dict(**rows, cpu_minutes=sum(row["cpu_minutes"] for row in rows.values()))
        timing.save(out, dict(systems=result))
        del runs
        jax.clear_caches()  # so many programs at once are more than a process can hold


if __name__ == "__main__":
    main()
