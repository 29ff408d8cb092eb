"""BSQ-ViT's tokenizer against its authors' outputs."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from vargen import tokenizers
from vargen.interop import bsqvit, systems
from vargen.interop.parity.golden import SINGLE, Golden, Result, close, exact, gradient_norms
from vargen.tokenizers.autoencoder import flat
from vargen.tokenizers.implicit import Signs, bit_entropies


def matches(golden: Golden) -> bool:
    """Whether it is a golden of a BSQ-ViT tokenizer."""
    return {"encoder.conv1.weight", "quant_embed.weight"} <= golden.weights.keys()


def built(golden: Golden, groups: int) -> Signs:
    """The tokenizer, of so many codes a slot; what arrays don't tell is as `meta` says."""
    meta, part = golden.meta, bsqvit.part(golden.weights)
    part.encoder.heads = meta["vitconfig"]["heads"]
    if "decoder_heads" in part.encoder:
        part.encoder.decoder_heads = meta["dvitconfig"]["heads"]
    part.update(
        groups=groups,
        entropy_weight=meta["zeta"] * meta["gamma0"] / meta["inv_temperature"],
        diversity=meta["gamma"] / meta["gamma0"],
        entropy_bits=meta["embed_group_size"],
        sharpness=meta["inv_temperature"],
    )
    return tokenizers.build(part, meta["vitconfig"]["image_size"], bsqvit.COLOURS)


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    images = jnp.asarray(golden["in/img"]).transpose(0, 2, 3, 1)
    several = golden.meta["embed_dim"] // golden.meta["embed_group_size"]
    for output, groups in (("indices", 1), ("group_indices", several)):
        if f"out/{output}" in golden:
            tokenizer = built(golden, groups)
            params = systems.read(bsqvit, tokenizer, golden.weights)
            codes = jax.jit(tokenizer.encode)(params, images)
            yield exact(f"out/{output}", codes, golden[f"out/{output}"])

    tokenizer = built(golden, 1)
    params = jax.tree.map(jnp.asarray, systems.read(bsqvit, tokenizer, golden.weights))
    order = bsqvit.places(tokenizer.channels, tokenizer.groups)

    def loss(params):
        features, kept = tokenizer.codec.encoder.apply(
            {"params": params["encoder"]},
            images,
            capture_intermediates=lambda module, method: module.name == "trunk",
            mutable=["intermediates"],
        )
        straight, value, _, _ = tokenizer.bottleneck(
            params, tokenizer.init_stats(), images, jax.random.key(0)
        )
        image, h = tokenizer.decode_latents(params, straight), tokenizer.squeezed(flat(features))
        logits = 4 * tokenizer.sharpness * tokenizer.size * h.reshape(-1, tokenizer.channels)
        total = jnp.mean(jnp.abs(image - images)) + value
        return total, dict(
            enc=flat(kept["intermediates"]["trunk"]["__call__"][0]),
            h=h[..., order],
            zq=flat(straight)[..., order],
            loss=value,
            cb_entropy=bit_entropies(logits, tokenizer.entropy_bits)[1],
            logit_margin=jnp.min(jnp.abs(h)),
            dec_raw=image.transpose(0, 3, 1, 2),
            rec=jnp.clip(image, *golden.meta["clamp_range"]).transpose(0, 3, 1, 2),
        )

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    for name, value in found.items():
        if f"out/{name}" in golden:
            expected = golden[f"out/{name}"]
            yield close(f"out/{name}", value, expected, SINGLE)
    yield from gradient_norms(golden, bsqvit.table(tokenizer), gradients, SINGLE, "grad_norm/")
