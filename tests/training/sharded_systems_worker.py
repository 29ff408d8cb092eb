"""Runs in a process of its own with eight devices: two steps of the systems named on several meshes, as JSON."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from systems import labels_for, make

from vargen.sharding import make_mesh, put_batch
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import GeneratorTask


def main():
    out = {}
    for name in sys.argv[1:]:
        config, generator, _, tokenizer_params = make(name)
        config.training.update(dict(batch_size=8, warmup_steps=0, learning_rate=1e-2))
        tokenizer = generator.tokenizer
        shape = (8, tokenizer.grid.size) + (() if tokenizer.vocab else (tokenizer.channels,))
        rng = np.random.default_rng(0)
        content = rng.integers(0, tokenizer.vocab, shape) if tokenizer.vocab else rng.normal(size=shape)
        content = content.astype(np.int32 if tokenizer.vocab else np.float32)
        batch = dict(content=content, label=jax.tree.map(np.asarray, labels_for(generator, 8)))
        task = GeneratorTask(generator, tokenizer)
        for sizes in ((1, 1, 1), (2, 2, 2)):
            mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
            now = state.create(task, optimizer.build(config.training, ["model"]), mesh, jax.random.key(1))
            frozen = jax.device_put(
                tokenizer_params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
            )
            step = make_step(task, config.training, mesh)
            losses = []
            for _ in range(2):
                now, metrics = step(now, frozen, put_batch(batch, mesh), jax.random.key(2))
                losses.append(float(metrics["loss"]))
            split = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(now.params))
            total = sum(float(jnp.sum(jnp.abs(np.asarray(x)))) for x in jax.tree.leaves(now.params))
            out[f"{name}/{'x'.join(map(str, sizes))}"] = dict(losses=losses, total=total, split=split)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
