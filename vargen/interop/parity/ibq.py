"""IBQ's tokenizer against its authors' outputs."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import ibq, systems
from vargen.interop.parity.golden import SINGLE, Golden, Result, close, exact, gradient_norms
from vargen.tokenizers.ibq import entropies


def matches(golden: Golden) -> bool:
    """Whether it is a golden of an IBQ tokenizer, whose arrays are named as VQGAN's."""
    return {"encoder.mid.attn_1.q.weight", "quantize.embedding.weight"} <= golden.weights.keys() and (
        "out/logits" in golden
    )


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    images = jnp.asarray(golden["in/img"]).transpose(0, 2, 3, 1)
    _, height, width, colours = images.shape
    part = ibq.part(golden.weights)
    part.update(
        codebook_weight=golden.meta.get("beta", 0.25),
        diversity=golden.meta.get("batch_maximization_weight", 1.0),
        entropy_temperature=golden.meta.get("entropy_temperature", 0.01),
        entropy_weight=0.05,
    )
    tokenizer = tokenizers.build(part, (height, width), colours)
    params = jax.tree.map(jnp.asarray, systems.read(ibq, tokenizer, golden.weights))

    def loss(params):
        through, value, _, metrics = tokenizer.bottleneck(
            params, tokenizer.init_stats(), images, jax.random.key(0)
        )
        image, latents = tokenizer.decode_latents(params, through), tokenizer.codec.encode(params, images)
        logits = tokenizer.logits(params["quantizer"], latents)
        arrays = dict(h=latents, logits=logits, zq=through, dec=image)
        found = {k: v.transpose(0, 3, 1, 2) for k, v in arrays.items()}
        sure, used = entropies(logits.reshape(-1, tokenizer.vocab) / tokenizer.entropy_temperature)
        found |= dict(sample_entropy=sure, avg_entropy=used, entropy_loss=metrics["entropy"])
        found["quant_loss"] = value - tokenizer.entropy_weight * metrics["entropy"]
        found["total"] = jnp.mean(jnp.abs(image - images)) + value
        return found["total"], found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    if "out/indices" in golden:
        codes = jax.jit(tokenizer.encode)(params, images)
        yield exact("out/indices", np.ravel(codes), golden["out/indices"])
    for name, value in (found | dict(d_embedding=gradients["quantizer"]["codebook"])).items():
        if f"out/{name}" in golden:
            yield close(f"out/{name}", value, golden[f"out/{name}"], SINGLE)
    yield from gradient_norms(golden, ibq.table(tokenizer), gradients, SINGLE)
