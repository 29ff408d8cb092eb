"""Passes and seconds of speculative Jacobi decoding beside one step after another, on trained models.

    vargen train --config configs/llamagen.py:digits --workdir runs/llamagen
    python -m benchmarks.jacobi runs/llamagen

Codes alone, without the tokenizer's decoder, with the model's own guidance: at temperature 1 and at 0, both policies
interleaved in one process. Codes at temperature 0 are compared. Writes results/jacobi_<backend>.json.
"""

from __future__ import annotations

import argparse
import functools

import jax
import numpy as np

import vargen
from benchmarks import timing
from vargen.samplers import decode

BATCHES = (16, 1)
POLICIES = dict(
    scheduled={},
    jacobi_4=dict(policy="jacobi", lookahead=4),
    jacobi_16=dict(policy="jacobi", lookahead=16),
    jacobi_16_left=dict(policy="jacobi", lookahead=16, guess="left"),
)
SEEDS = 4  # batches over which passes are averaged


@functools.cache
def _run(model: vargen.Model):
    return jax.jit(functools.partial(decode, model.generator))


def measure(model: vargen.Model, batch: int, temperature: float, rounds: int) -> dict:
    """One model, batch and temperature: every policy."""
    run = _run(model)
    labels = np.arange(batch) % len(model.classes)
    args = model.generator_params, model.tokenizer_params["quantizer"], labels
    settings = {name: model.sampling(temperature=temperature, **p) for name, p in POLICIES.items()}

    def draw(name, seed=0):
        return jax.block_until_ready(run(*args, jax.random.key(seed), settings[name]))

    times = timing.interleaved({name: functools.partial(draw, name) for name in POLICIES}, rounds)
    found = {name: [draw(name, seed) for seed in range(SEEDS)] for name in POLICIES}
    slots = model.tokenizer.grid.size
    result = {}
    for name, drawn in found.items():
        passes = np.stack([d.passes for d in drawn])
        result[name] = dict(
            seconds=times[name]["warm"],
            cpu_per_wall=times[name]["cpu_per_wall"],
            seconds_over_scheduled=times[name]["warm"] / times["scheduled"]["warm"],
            passes=float(passes.mean()),
            passes_of_the_batch=float(passes.max(axis=1).mean()),
            codes_per_pass=slots / float(passes.mean()),
        )
        if temperature == 0:
            same = [np.mean(a.content == b.content) for a, b in zip(drawn, found["scheduled"], strict=True)]
            result[name]["same_codes"] = float(np.mean(same))
    return result


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", help="what `vargen train` wrote")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds after the first")
    args = parser.parse_args()
    result: dict = {}
    for workdir in args.workdirs:
        model = vargen.load(workdir)
        entry = dict(training_steps=model.steps[-1], guidance=model.config.sampling.guidance, batches={})
        result[f"{model.config.name}, {model.tokenizer.grid.size} slots"] = entry
        for batch in BATCHES:
            entry["batches"][str(batch)] = {
                f"temperature_{t}": measure(model, batch, float(t), args.rounds) for t in (1, 0)
            }
            timing.save(f"jacobi_{jax.default_backend()}", result)


if __name__ == "__main__":
    main()
