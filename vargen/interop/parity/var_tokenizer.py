"""VAR's tokenizer against its authors' outputs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from vargen import tokenizers
from vargen.interop import systems, var_tokenizer
from vargen.interop.parity.golden import REPRODUCED, SINGLE, Golden, Result, close, exact
from vargen.tokenizers.distances import distances
from vargen.tokenizers.multiscale import MultiScaleVQ, phi_table


def matches(golden: Golden) -> bool:
    """Whether it is a golden of VAR's tokenizer."""
    return {"encoder.mid.attn_1.qkv.weight", "quantize.embedding.weight"} <= set(golden.weights)


def options(golden: Golden) -> dict[str, float]:
    """Options of the tokenizer's part that `meta` tells, and no array; by default the published models'."""
    told = dict(beta=golden.meta.get("beta", 0.25), phi_ratio=abs(golden.meta.get("quant_resi", 0.5)))
    return dict(told, centre_weight=0.0)  # a loss that is ours alone


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    for output in golden.outputs("phi_index/"):
        sizes = re.fullmatch(r"out/phi_index/(?:K(\d+)|nonshared)_S(\d+)", output)
        if sizes:
            yield exact(output, phi_table(int(sizes[2]), int(sizes[1] or 0)), golden[output])
    if "in/img" not in golden:
        return

    images = jnp.asarray(golden["in/img"]).transpose(0, 2, 3, 1)
    _, height, width, colours = images.shape
    levels = golden.meta.get("patch_nums")
    part = {**var_tokenizer.part(golden.weights, levels and tuple(levels)), **options(golden)}
    tokenizer = tokenizers.build(part, (height, width), colours)
    params = jax.tree.map(jnp.asarray, systems.read(var_tokenizer, tokenizer, golden.weights))
    found = jax.jit(lambda params, images: _outputs(tokenizer, params, images))(params, images)
    for name, value in found.items():
        output = f"out/{name}"
        if output not in golden:
            continue
        if name.startswith("idx_"):
            yield exact(output, value, golden[output])
        elif name == "min_margin":
            # Differences of distances, with the rounding of these.
            margins, distance = value
            result = close(output, margins, golden[output], REPRODUCED)
            yield dataclasses.replace(result, tolerance=REPRODUCED * float(distance))
        else:
            # The convolutional ends were not reproduced independently.
            ends = name in ("enc_f", "rec", "dec_unclamped")
            yield close(output, value, golden[output], SINGLE if ends else REPRODUCED)


def _outputs(tokenizer: MultiScaleVQ, params: dict, images: jax.Array) -> dict[str, Any]:
    """What the authors' code gives for images [B, H, W, C], by their names; latents and images NCHW."""
    quantizer = params["quantizer"]
    latents = tokenizer.codec.encode(params, images)
    codes, f_hat = tokenizer.quantise(quantizer, latents)
    straight, loss, _, _ = tokenizer.bottleneck(params, tokenizer.init_stats(), images, jax.random.key(0))
    image = tokenizer.decode_latents(params, f_hat)
    outputs = {
        "enc_f": _nchw(latents),
        "dec_unclamped": _nchw(image),
        "rec": _nchw(jnp.clip(image, -1, 1)),
        "vq_fhat_ste": _nchw(straight),
        "vq_loss": loss,
    }
    f_hat, inputs, pairs = tokenizer.start(len(images)), [], []
    for level, level_codes in enumerate(tokenizer.split(codes)):
        inputs.append(tokenizer.resample(f_hat, level))
        rest = tokenizer.resample(latents - f_hat, level).reshape(-1, tokenizer.channels)
        pairs.append(-jax.lax.top_k(-distances(rest, quantizer["codebook"]), 2)[0])
        f_hat = tokenizer.absorb(quantizer, f_hat, level_codes, level)
        outputs |= {f"idx_{level}": level_codes, f"fhat_{level}": _nchw(f_hat)}
    margins = jnp.stack([jnp.min(second - first) for first, second in (pair.T for pair in pairs)])
    # By how much the second nearest code is farther, where that is least; and the largest distance of these.
    outputs["min_margin"] = margins, jnp.max(jnp.concatenate(pairs))
    return outputs | {"var_input": jnp.concatenate(inputs[1:], axis=1)}


def _nchw(x: jax.Array) -> jax.Array:
    return x.transpose(0, 3, 1, 2)
