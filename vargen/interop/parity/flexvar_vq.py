"""FlexVAR's tokenizer against its authors' outputs."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import flexvar_vq, systems
from vargen.interop.parity.golden import REPRODUCED, SINGLE, Golden, Result, close, exact, gradient_norms
from vargen.tokenizers import resample

# A group of GroupNorm that holds one number has no deviation: the answer is its bias, and rounding counts 1000 times.
ALONE = 1e-3


def matches(golden: Golden) -> bool:
    """Whether it is a golden of FlexVAR's tokenizer."""
    return "encoder.conv_blocks.0.res.0.conv1.weight" in golden.weights and bool(golden.outputs("scale"))


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    config = golden.meta["config"]
    sides = tuple(config["scales"])
    part = flexvar_vq.part(golden.weights, sides).to_dict()
    part["entropy_weight"] = config["model"]["entropy_loss_ratio"]
    tokenizer = tokenizers.build(part, tuple(config["x0"]), 3)
    params = jax.tree.map(jnp.asarray, systems.read(flexvar_vq, tokenizer, golden.weights))
    factor = config["x0"][0] // sides[-1]
    alone = {name: tokenizer.over((tuple(n // factor for n in config[name]),)) for name in ("x0", "x1")}
    for name, one in alone.items():
        if golden.outputs(f"{name}/"):
            yield from _one_level(golden, name, one, params)
    if golden.outputs("train/"):
        yield from _training(golden, alone["x1"], params)
    if golden.outputs("scale"):
        yield from _levels(golden, tokenizer, params)


def _images(golden: Golden, name: str) -> jax.Array:
    return jnp.asarray(golden[f"in/{name}"]).transpose(0, 2, 3, 1)


def _one_level(golden: Golden, name: str, tokenizer, params) -> Iterator[Result]:
    """There and back at the encoder's own resolution, square or not."""

    @jax.jit
    def run(params, images):
        codes = tokenizer.encode(params, images)
        latents = tokenizer.latents(params["quantizer"], codes)
        arrays = dict(h=tokenizer.codec.encode(params, images), quant=latents)
        decoded = tokenizer.decode(params, codes)
        return codes, arrays | dict(rec=tokenizer.decode_latents(params, latents), decode_code=decoded)

    codes, found = run(params, _images(golden, name))
    if f"out/{name}/ids" in golden:
        yield exact(f"out/{name}/ids", np.ravel(codes), golden[f"out/{name}/ids"])
    for output, value in found.items():
        if f"out/{name}/{output}" in golden:
            yield close(
                f"out/{name}/{output}",
                value.transpose(0, 3, 1, 2),
                golden[f"out/{name}/{output}"],
                REPRODUCED,
            )


def _training(golden: Golden, tokenizer, params) -> Iterator[Result]:
    """The terms of the loss, and its gradients."""

    def loss(params, images):
        latents, extra, _, metrics = tokenizer.bottleneck(
            params, tokenizer.init_stats(), images, jax.random.key(0)
        )
        mse = jnp.mean(jnp.square(tokenizer.decode_latents(params, latents) - images))
        return mse + extra, metrics | dict(mse=mse)

    (_, metrics), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, _images(golden, "x1"))
    terms = dict(
        vq_loss=metrics["codebook"],
        commit_loss=tokenizer.beta * metrics["commitment"],
        entropy_loss=tokenizer.entropy_weight * metrics["entropy"],
        mse=metrics["mse"],
    )
    for output, value in terms.items():
        if f"out/train/{output}" in golden:
            yield close(f"out/train/{output}", value, golden[f"out/train/{output}"], SINGLE)
    # The entropy of a temperature of 0.01 magnifies rounding.
    table = flexvar_vq.table(tokenizer)
    yield from gradient_norms(golden, table, gradients, 2 * SINGLE, "train/gradnorm/")


def _levels(golden: Golden, tokenizer, params) -> Iterator[Result]:
    """The picture at every level, and its picture at sixteen pixels a slot."""

    @jax.jit
    def run(params, images):
        codes = tokenizer.split(tokenizer.encode(params, images))
        absorbed = [tokenizer.absorb(params["quantizer"], None, c, i) for i, c in enumerate(codes)]
        pictures = [tokenizer.codec.decode(params, latents) for latents in absorbed]
        large = [resample.bicubic(picture[:1], (last, last))[:, ::4, ::4] for picture in pictures]
        return list(zip(absorbed, pictures, large, strict=True))

    last = 16 * tokenizer.grid.levels[-1][0]
    for (side, _), (latents, picture, large) in zip(
        tokenizer.grid.levels, run(params, _images(golden, "x0")), strict=True
    ):
        tolerance = ALONE if side == 1 else 5 * REPRODUCED / 2
        for output, value in (("quant", latents), ("rec", picture), ("rec_resized16x", large)):
            name = f"out/scale{side}/{output}"
            if name in golden:
                yield close(name, value.transpose(0, 3, 1, 2), golden[name], tolerance)
