"""Open-MAGVIT2's tokenizer against its authors' outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import open_magvit2, systems
from vargen.interop.parity.golden import SINGLE, Golden, Result, close, exact, gradient_norms

EPS = 1e-5  # that they add to a code's probability in its logarithm, which alters each code's share by as much at most


def matches(golden: Golden) -> bool:
    """Whether it is a golden of an Open-MAGVIT2 tokenizer."""
    return "decoder.adaptive.0.gamma.weight" in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    images = jnp.asarray(golden["in/img"]).transpose(0, 2, 3, 1)
    _, height, width, colours = images.shape
    part = open_magvit2.part(golden.weights)
    lfq = golden.meta.get("lfq", {})
    part.update(
        diversity=lfq.get("batch_maximization_weight", 0.8),
        sharpness=1 / lfq.get("temperature", 0.01),
        entropy_weight=1.0,
        entropy_bits=min(part.channels, 12),
    )
    tokenizer = tokenizers.build(part, (height, width), colours)
    params = jax.tree.map(jnp.asarray, systems.read(open_magvit2, tokenizer, golden.weights))

    def loss(params):
        straight, _, _, metrics = tokenizer.bottleneck(
            params, tokenizer.init_stats(), images, jax.random.key(0)
        )
        image = tokenizer.decode_latents(params, straight)
        arrays = dict(h=tokenizer.codec.encode(params, images), zq=straight, dec=image)
        total = jnp.mean(jnp.abs(image - images)) + 0.25 * metrics["commitment"]
        return total, (
            {k: v.transpose(0, 3, 1, 2) for k, v in arrays.items()} | dict(total=total),
            arrays["h"],
        )

    (_, (found, latents)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    if "out/indices" in golden:
        codes = jax.jit(tokenizer.encode)(params, images)
        yield exact("out/indices", np.ravel(codes), golden["out/indices"])
    for name, value in found.items():
        if f"out/{name}" in golden:
            yield close(f"out/{name}", value, golden[f"out/{name}"], SINGLE)
    yield from _terms(golden, "", tokenizer, latents)
    if "in/soft_x" in golden:
        yield from _terms(golden, "soft/", tokenizer, golden["in/soft_x"].transpose(0, 2, 3, 1))
    yield from gradient_norms(golden, open_magvit2.table(tokenizer), gradients, SINGLE)


def _terms(golden: Golden, where: str, tokenizer, latents) -> Iterator[Result]:
    """The quantiser's losses of latents [B, h, w, C]."""
    sharper = dataclasses.replace(tokenizer, diversity=0.0)

    @jax.jit
    def terms(latents):
        flat = jnp.asarray(latents).reshape(-1, tokenizer.channels)
        values = tokenizer.values(tokenizer.places(flat))
        found, sure = tokenizer.regularised(flat, values)[1], sharper.regularised(flat, values)[1]["entropy"]
        used = (sure - found["entropy"]) / tokenizer.diversity
        return found["commitment"], sure, used, found["entropy"]

    names = ("commit", "per_sample_entropy", "codebook_entropy", "entropy_loss")
    for name, value in zip(names, terms(latents), strict=True):
        output = f"out/{where}{name}"
        if output in golden:
            result = close(output, value, golden[output], SINGLE)
            joint = name in ("codebook_entropy", "entropy_loss")
            yield dataclasses.replace(result, tolerance=result.tolerance + joint * EPS * tokenizer.vocab)
