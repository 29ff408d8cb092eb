"""LlamaGen's tokenizers against their authors' outputs."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from vargen import tokenizers
from vargen.interop import llamagen_vq, systems
from vargen.interop.parity.golden import SINGLE, Golden, Result, close, exact


def matches(golden: Golden) -> bool:
    """Whether it is a golden of a LlamaGen tokenizer."""
    return "encoder.conv_blocks.0.res.0.conv1.weight" in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    images = golden["in/img"].transpose(0, 2, 3, 1)
    # What the arrays don't tell; the defaults are the published models'.
    options = dict(
        normalise=golden.meta.get("l2_norm", True),
        beta=golden.meta.get("beta", 0.25),
        entropy_weight=golden.meta.get("entropy_loss_ratio", 0.0),
    )
    part = llamagen_vq.part(golden.weights).to_dict() | options
    tokenizer = tokenizers.build(part, images.shape[1:3], images.shape[3])

    @jax.jit
    def run(params, images):
        codes = tokenizer.encode(params, images)
        metrics = tokenizer.bottleneck(params, tokenizer.init_stats(), images, jax.random.key(0))[3]
        arrays = dict(
            prequant=tokenizer.codec.encode(params, images),
            quant=tokenizer.latents(params["quantizer"], codes),
            rec=tokenizer.decode(params, codes),
        )
        # The authors' losses are weighted.
        losses = dict(
            vq_loss=metrics["codebook"],
            commit_loss=tokenizer.beta * metrics["commitment"],
            entropy_loss=tokenizer.entropy_weight * metrics.get("entropy", 0.0),
        )
        return codes, {k: v.transpose(0, 3, 1, 2) for k, v in arrays.items()} | losses

    codes, found = run(systems.read(llamagen_vq, tokenizer, golden.weights), images)
    if "out/ids" in golden:
        yield exact("out/ids", np.reshape(codes, golden["out/ids"].shape), golden["out/ids"])
    for name, value in found.items():
        if f"out/{name}" in golden:
            yield close(f"out/{name}", value, golden[f"out/{name}"], SINGLE)
