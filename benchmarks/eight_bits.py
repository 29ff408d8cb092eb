"""What weights of 8 bits cost in quality: a trained model's codes, likelihoods and samples, beside those of bfloat16.

    vargen quickstart --config llamagen:digits --workdir runs/llamagen
    python -m benchmarks.eight_bits runs/llamagen

The share of codes that are equal when the likeliest are taken, from the same seed; bits per code of held-out pictures;
what `vargen evaluate` says of 500 samples; and the bytes of the generator's parameters. All in bfloat16. Writes
results/eight_bits.json.
"""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np

import vargen
from benchmarks import timing
from vargen import config, data
from vargen.schema import WEIGHTS

SHOWN = ("label_accuracy", "frechet_distance_classifier", "precision", "recall")


def evaluated(workdir: str, weights: str) -> dict[str, float]:
    """What the command says of samples."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "vargen", "evaluate", "--workdir", workdir, "--out", out]
        command += ["--samples", "500", "--weights", weights, "--config.compute_dtype=bfloat16"]
        subprocess.run(command, check=True)
        found = json.loads((pathlib.Path(out) / "metrics.json").read_text())
    return {name: found[name] for name in SHOWN}


def main() -> None:
    """Compares the forms of one model's weights."""
    (workdir,) = sys.argv[1:]
    result, likeliest = {}, {}
    for weights in WEIGHTS:
        model = vargen.load(workdir, weights=weights)
        model = model.with_config(config.override(model.config, [("compute_dtype", "bfloat16")]))
        labels = np.arange(100) % len(model.classes)
        likeliest[weights] = np.asarray(model.generate(labels, 0, temperature=0.0)[0])
        held_out = data.Sources(model.config.data)["test"]
        images, real = data.arrays(held_out)
        codes = model.encode(data.to_float(images))
        nats = float(np.mean(np.asarray(model.log_likelihood(codes, real))))
        result[weights] = dict(
            equal_codes=float(np.mean(likeliest[weights] == likeliest["full"])),
            bits_per_code=-nats / math.log(2) / codes.shape[1],
            parameter_bytes=sum(x.nbytes for x in jax.tree.leaves(model._ready)),
            **evaluated(workdir, weights),
        )
    timing.save("eight_bits", dict(config=model.config.name, weights=result))


if __name__ == "__main__":
    main()
