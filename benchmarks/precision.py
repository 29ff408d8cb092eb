"""How far bfloat16 computation lies from float32, with the weights of trained or imported models.

    python -m benchmarks.precision models/var_d16 models/rar_b --batch 2

Contents are drawn in float32. Over them, in one parallel pass each: the deviation of the logits (of the hidden
vectors, where the head has no logits) and the share of positions whose likeliest code stays the same. Then both
decode greedily: the share of tokens that are equal, which falls quickly behind the first that differs. Writes
results/precision_<backend>.json. On a CPU bfloat16 products are what an accelerator computes up to the order of
sums. Models of earlier runs stay in the file.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import vargen
from benchmarks import timing
from vargen.model import Model

DRAWING_STEPS = 4


def in_dtype(model: Model, dtype: str) -> Model:
    """The same parameters, computed with in another precision."""
    c = model.config.copy_and_resolve_references()
    c.compute_dtype = dtype
    return model.with_config(c)


def outputs(model: Model, content, labels):
    """Logits (hidden vectors where there are none) of a parallel pass, float32 [B, N, ...]."""
    g = model.generator
    quantizer = model.tokenizer_params["quantizer"]

    @jax.jit
    def run(params, quantizer, content):
        key = jax.random.key(0)
        order = (
            g.order.training(key, len(content))
            if g.order.random_decoding
            else g.order.decoding(None, len(content))
        )
        hidden, _ = g.hidden(params, quantizer, content, labels, order)
        if g.tokenizer.slot.kind == "codes":
            hidden = g.head.apply({"params": params["head"]}, hidden)
        return hidden.astype(jnp.float32)

    return np.asarray(run(model.generator_params, quantizer, content))


def measure(workdir: str, batch: int) -> dict:
    """The deviations of one model."""
    model = vargen.load(workdir)
    models = {dtype: in_dtype(model, dtype) for dtype in ("float32", "bfloat16")}
    classes = model.config.data.num_classes
    labels = np.arange(batch) * max(classes // batch, 1) % classes
    # Latents only have to be likely enough to compute on.
    steps = DRAWING_STEPS if model.generator.tokenizer.slot.kind == "latents" else 0
    content = models["float32"].generate(labels, 0, steps=steps)[0]
    exact, half = (outputs(m, content, jnp.asarray(labels)) for m in models.values())
    error = half - exact
    result = dict(
        config=model.config.name,
        batch=batch,
        parameters_millions=sum(x.size for x in jax.tree.leaves(model.generator_params)) / 1e6,
        output="logits" if model.generator.tokenizer.slot.kind == "codes" else "hidden vectors",
        largest_error_over_largest_value=float(np.abs(error).max() / np.abs(exact).max()),
        rms_error_over_rms=float(
            np.sqrt((error**2).mean() / ((exact - exact.mean(-1, keepdims=True)) ** 2).mean())
        ),
    )
    if model.generator.tokenizer.slot.kind == "codes":
        same = exact.argmax(-1) == half.argmax(-1)
        top = np.sort(exact, axis=-1)
        result["likeliest_code_the_same"] = float(same.mean())
        result["median_gap_to_the_second"] = float(np.median(top[..., -1] - top[..., -2]))
        greedy = [np.asarray(m.generate(labels, 0, temperature=0.0)[0]) for m in models.values()]
        equal = greedy[0] == greedy[1]
        result["greedy_tokens_equal"] = float(equal.mean())
        result["greedy_tokens_before_the_first_other"] = float(
            np.where(equal.all(1), equal.shape[1], equal.argmin(1)).mean()
        )
        result["slots"] = equal.shape[1]
    images = [np.asarray(m.decode(content), np.float32) for m in models.values()]
    result["decoder_mean_error_in_grey_levels"] = float(np.abs(images[0] - images[1]).mean() * 127.5)
    return result


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "workdirs", nargs="*", help="of `vargen train` or `vargen import`; none: nothing is done"
    )
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    name = f"precision_{jax.default_backend()}"
    earlier = timing.RESULTS / f"{name}.json"
    result = json.loads(earlier.read_text()) if earlier.exists() else {}
    result.pop("environment", None)
    for workdir in args.workdirs:
        result[pathlib.Path(workdir).name] = measure(workdir, args.batch)
        timing.save(name, result)


if __name__ == "__main__":
    main()
