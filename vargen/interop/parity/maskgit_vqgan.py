"""MaskGIT's VQGAN, RAR's tokenizer, against the outputs of the code that RAR's authors ship."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from vargen import tokenizers
from vargen.interop import maskgit_vqgan, systems
from vargen.interop.parity.golden import SINGLE, Golden, Result, close, exact


def matches(golden: Golden) -> bool:
    """Whether it is a golden of MaskGIT's VQGAN."""
    # Others that call their levels "down" have attention in the middle, and so other names there.
    names = ("encoder.down.0.block.0.conv1.weight", "encoder.mid.0.conv1.weight")
    return all(name in golden.weights for name in names)


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    images = golden["in/img"].transpose(0, 2, 3, 1)
    # Its weights of the losses, which aren't those of MaskGIT's training.
    part = {**maskgit_vqgan.part(golden.weights), **dict(beta=1.0, codebook_weight=0.25, entropy_weight=0.0)}
    tokenizer = tokenizers.build(part, images.shape[1:3], images.shape[3])

    @jax.jit
    def run(params, images):
        codes = tokenizer.encode(params, images)
        loss = tokenizer.bottleneck(params, tokenizer.init_stats(), images, jax.random.key(0))[1]
        arrays = dict(
            h=tokenizer.codec.encode(params, images),
            quant=tokenizer.latents(params["quantizer"], codes),
            dec=(tokenizer.decode(params, codes) + 1) / 2,
        )
        return codes, {k: v.transpose(0, 3, 1, 2) for k, v in arrays.items()} | dict(loss=loss)

    # The authors' images are in [0, 1].
    codes, found = run(systems.read(maskgit_vqgan, tokenizer, golden.weights), 2 * images - 1)
    if "out/ids" in golden:
        yield exact("out/ids", np.reshape(codes, golden["out/ids"].shape), golden["out/ids"])
    for name, value in found.items():
        if f"out/{name}" in golden:
            yield close(f"out/{name}", value, golden[f"out/{name}"], SINGLE)
