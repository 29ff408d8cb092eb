"""VQGAN against its authors' outputs."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import systems, taming_vqgan
from vargen.interop.parity.golden import SINGLE, Golden, Result, close, exact, gradient_norms


def matches(golden: Golden) -> bool:
    """Whether it is a golden of a VQGAN."""
    names = {"encoder.mid.attn_1.q.weight", "quantize.embedding.weight"}
    return names <= golden.weights.keys() and "out/logits" not in golden


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    images = jnp.asarray(golden["in/img"]).transpose(0, 2, 3, 1)
    _, height, width, colours = images.shape
    part = taming_vqgan.part(golden.weights).to_dict() | dict(codebook_weight=golden.meta.get("beta", 0.25))
    tokenizer = tokenizers.build(part, (height, width), colours)
    params = jax.tree.map(jnp.asarray, systems.read(taming_vqgan, tokenizer, golden.weights))

    def loss(params):
        straight, value, _, metrics = tokenizer.bottleneck(
            params, tokenizer.init_stats(), images, jax.random.key(0)
        )
        image = tokenizer.decode_latents(params, straight)
        arrays = dict(h=tokenizer.codec.encode(params, images), zq=straight, dec=image)
        found = {k: v.transpose(0, 3, 1, 2) for k, v in arrays.items()} | dict(vq_loss=value)
        # As their program has it without its "legacy".
        found["vq_loss_new"] = tokenizer.codebook_weight * metrics["commitment"] + metrics["codebook"]
        found["total"] = jnp.mean(jnp.abs(image - images)) + value
        return found["total"], found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    if "out/indices" in golden:
        codes = jax.jit(tokenizer.encode)(params, images)
        yield exact("out/indices", np.ravel(codes), golden["out/indices"])
    for name, value in found.items():
        if f"out/{name}" in golden:
            yield close(f"out/{name}", value, golden[f"out/{name}"], SINGLE)
    yield from gradient_norms(golden, taming_vqgan.table(tokenizer), gradients, SINGLE)
