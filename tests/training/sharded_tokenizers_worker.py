"""Runs in a process of its own with eight devices: tokenizers against each discriminator on two meshes, as JSON.

And one of registers, nested, whose decoder draws, with a prior beside it, and pictures changed before they are judged.
"""

import json
import sys

import jax
import numpy as np
from systems import make
from test_tasks import GAMES, doubled

from vargen.config import part
from vargen.models import build_tokenizer
from vargen.sharding import make_mesh, put_batch, replicated
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import TokenizerTask

REGISTERS = part("registers", tokens=8, patch=4, width=16, layers=2, heads=2, sees="causal", nested="powers")
REGISTERS.decoder = part("flow", steps=3)


def main():
    out = {}
    for name in sys.argv[1:]:
        config = make("var")[0]
        s = config.tokenizer_training
        s.update(dict(warmup_steps=0, batch_size=16, learning_rate=3e-3))
        s.losses.update(dict(adversarial=0.5, adaptive=True, perceptual=0.1, ms_ssim=0.1, gram=0.1))
        s.losses.update(GAMES.get(name, GAMES["patch"]))
        if name == "registers":
            config.tokenizer = part("vq", vocab=32, channels=4, revive_every=2, encoder=REGISTERS)
            s.losses.update(dict(prior=0.1, prior_width=16, prior_layers=1, prior_heads=2))
            s.losses.augment = ("color", "translation", "cutout")
        task = TokenizerTask(build_tokenizer(config), s, doubled)
        rng = np.random.default_rng(0)
        batch = dict(image=rng.uniform(-1, 1, (16, 16, 16, 1)).astype(np.float32))
        shapes = task.adversary.discriminator.frozen()
        judge = {k: 0.3 * rng.normal(size=x.shape).astype(np.float32) for k, x in shapes.items()}
        for sizes in ((1, 1, 1), (2, 2, 2)):
            mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
            now = state.create(task, optimizer.build(s, state.boxed(task)), mesh, jax.random.key(1))
            frozen = jax.device_put(dict(perceptual=np.float32(2.0), discriminator=judge), replicated(mesh))
            step, rows = make_step(task, s, mesh), []
            for _ in range(3):
                now, metrics = step(now, frozen, put_batch(batch, mesh), jax.random.key(2))
                rows.append({k: float(v) for k, v in metrics.items()})
            kept = {
                "/".join(key.key for key in path): np.asarray(x).tolist()
                for path, x in jax.tree_util.tree_leaves_with_path(now.stats.get("discriminator", {}))
            }
            totals = {
                k: sum(float(np.abs(x).sum()) for x in jax.tree.leaves(v)) for k, v in now.params.items()
            }
            out[f"{name}/{'x'.join(map(str, sizes))}"] = dict(rows=rows, kept=kept, totals=totals)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
