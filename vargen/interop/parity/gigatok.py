"""GigaTok's tokenizers against their authors' outputs: rows, codes, pictures, losses, gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import gigatok, mapping, systems
from vargen.interop.parity.golden import SINGLE, Golden, Result, close, exact, norms
from vargen.tokenizers.vq import VQ


def matches(golden: Golden) -> bool:
    """Whether it is a golden of a tokenizer of GigaTok's."""
    return {f"{gigatok.ENCODER}.global_proj.weight", "post_quant_conv.weight"} <= golden.weights.keys()


def built(golden: Golden) -> tuple[VQ, dict]:
    """The tokenizer and its parameters; what arrays don't tell is as `meta` says."""
    meta, part, images = golden.meta, gigatok.part(golden.weights), golden["in/img"]
    part.encoder.heads, inner = meta["heads"]
    part.encoder.update(decoder_heads=inner, shown_after=meta["args"]["distill_depth"])
    part.encoder.stem.groups = meta["groups"]
    part.beta = meta["args"].get("commit_loss_beta", part.get("beta", 0.25))
    tokenizer = tokenizers.build(part, images.shape[2:], images.shape[1])
    return tokenizer, jax.tree.map(jnp.asarray, systems.read(gigatok, tokenizer, golden.weights))


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    tokenizer, params = built(golden)
    images = jnp.asarray(golden["in/img"].transpose(0, 2, 3, 1))
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder

    def loss(params: dict) -> tuple[jax.Array, dict[str, Any]]:
        through, _, _, metrics = tokenizer.bottleneck(
            params, tokenizer.init_stats(), images, jax.random.key(0)
        )
        stem = encoder.stem.apply({"params": params["encoder"]["stem"]}, images)
        image, kept = decoder.apply(
            {"params": params["decoder"]},
            through,
            capture_intermediates=lambda module, method: module.name in ("shown", "pixels_in"),
            mutable=["intermediates"],
        )
        inner = {name: x["__call__"][0] for name, x in kept["intermediates"].items()}
        direct = decoder.pixels.apply({"params": params["decoder"]["pixels"]}, stem)
        found = dict(
            vq_loss=metrics["codebook"],
            commit_loss=tokenizer.beta * metrics["commitment"],
            feature_loss=jnp.mean(jnp.square(inner["pixels_in"] - jax.lax.stop_gradient(stem))),
        )
        errors = (jnp.mean(jnp.abs(x - images)) for x in (image, direct))
        total = sum(errors) + sum(found.values())
        pictures = dict(stem=stem, spatial=inner["pixels_in"], dec=image, adaptive_dir=direct)
        found |= {name: x.transpose(0, 3, 1, 2) for name, x in pictures.items()}
        return total, found | dict(total=total, shown=inner["shown"])

    def outputs(params: dict) -> dict[str, Any]:
        latents, kept = encoder.apply(
            {"params": params["encoder"]},
            images,
            capture_intermediates=lambda module, method: module.name == "norm_out",
            mutable=["intermediates"],
        )
        codes = tokenizer.encode(params, images)
        rows = kept["intermediates"]["norm_out"]["__call__"][0]
        return dict(
            rows=rows.swapaxes(1, 2)[:, :, None],
            h=latents.transpose(0, 3, 1, 2),
            indices=codes,
            dec_from_ids=tokenizer.decode(params, codes).transpose(0, 3, 1, 2),
        )

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    for name, value in (found | jax.jit(outputs)(params)).items():
        output = f"out/{name}"
        if output in golden:
            same = name == "indices"
            yield (
                exact(output, value, golden[output]) if same else close(output, value, golden[output], SINGLE)
            )
    theirs = mapping.write(gigatok.table(tokenizer), jax.tree.map(np.asarray, gradients))
    yield from norms(golden, _chained(theirs, golden.weights, tokenizer.channels), SINGLE, "grad_norm/")


def _chained(
    found: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray], channels: int
) -> dict[str, np.ndarray]:
    """Gradients as the table writes them, with those of two products that are one here by the chain rule."""
    names = [f"{gigatok.ENCODER}.conv_out.weight", f"{gigatok.ENCODER}.conv_out.bias", "quant_conv.weight"]
    first, first_bias, second = (weights[x] for x in names)
    first, second = first[:, :, 0, 0], second[:, :, 0, 0]
    kernel, bias = found[names[0]][:channels, :, 0, 0].T, found["quant_conv.bias"]
    own = second.T @ kernel.T, second.T @ bias, kernel.T @ first.T + np.outer(bias, first_bias)
    return dict(found) | dict(zip(names, own, strict=True))
