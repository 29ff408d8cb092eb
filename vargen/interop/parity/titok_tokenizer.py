"""TiTok's tokenizers against their authors' outputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import mapping, systems, titok_tokenizer
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, gradient_norms
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.kl import divergence


def matches(golden: Golden) -> bool:
    """Whether it is a golden of a tokenizer of TiTok that gives pixels."""
    names = golden.weights
    pixels = "decoder.conv_out.weight" in names or "pixel_decoder.conv_out.weight" in names
    return "latent_tokens" in names and pixels


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    images = golden["in/img"].transpose(0, 2, 3, 1)
    part = titok_tokenizer.part(golden.weights)
    # What the arrays don't tell; of the published models heads have 64 channels.
    for end in (part.encoder, part.encoder.decoder):
        if "heads" in end:
            end.heads = golden.meta["heads"]
    codes = part.name == "vq"
    if codes:
        part.normalise = golden.meta["config"]["model"]["vq_model"]["use_l2_norm"]
    tokenizer = tokenizers.build(part, images.shape[1:3], images.shape[3])
    params = jax.tree.map(jnp.asarray, systems.read(titok_tokenizer, tokenizer, golden.weights))
    text = None if tokenizer.texts is None else jnp.asarray(golden["in/text"])
    noise = None if codes else jnp.asarray(golden["in/noise"][:, :, 0].swapaxes(1, 2))
    # The second stage trains the decoder alone, and no loss of the codes counts.
    frozen = part.encoder.decoder.get("codes", 0) > 0

    def run(params, images):
        z = tokenizer.codec.encode(params, images)
        if codes:
            latents, loss, _, found = tokenizer.bottleneck(
                params, tokenizer.init_stats(), images, jax.random.key(0)
            )
            losses = dict(
                quantizer_loss=loss,
                codebook_loss=found["codebook"],
                commitment_loss=tokenizer.beta * found["commitment"],
            )
            if frozen:
                latents, losses = jax.lax.stop_gradient((latents, jax.tree.map(jnp.zeros_like, losses)))
            loss = losses["quantizer_loss"]
            indices = tokenizer.encode(params, images)
            decoded = tokenizer.decode(params, indices, text)
            more = dict(indices=indices[:, None], dec_from_tokens=_unit(decoded))
        else:
            mean, std = jnp.split(tokenizer.moments(params, images), 2, axis=-1)
            latents = (mean + std * noise)[:, None]
            kl = jnp.sum(divergence(mean, 2 * jnp.log(std)), axis=-1)
            loss, losses = 1e-3 * jnp.sum(kl), {}
            more = dict(kl=kl, mean=mean[:, None], std=std[:, None], logvar=2 * jnp.log(std)[:, None])
        if frozen:
            more["dec_logits"] = _logits(tokenizer, params, latents)
        decode = (
            tokenizer.codec.decode if text is None else functools.partial(tokenizer.codec.told, text=text)
        )
        image = decode(params, latents)
        loss = loss + jnp.mean(jnp.square(image - images)) / 4  # theirs lie from 0 to 1
        return loss, dict(z=z, zq=latents, dec=_unit(image), total_loss=loss, **losses, **more)

    (_, found), gradients = jax.jit(jax.value_and_grad(run, has_aux=True))(params, 2 * images - 1)
    for name, value in found.items():
        output = f"out/{name}"
        if output not in golden:
            continue
        if name == "indices":
            yield exact(output, value, golden[output])
        else:
            value = np.moveaxis(value, -1, 1) if value.ndim == 4 else value
            yield close(output, value, golden[output], REPRODUCED)
    table = [_addends(entry) for entry in titok_tokenizer.table(tokenizer)]
    yield from gradient_norms(golden, table, gradients, 1e-4, "grad_norm/")


def _addends(entry: mapping.Entry) -> mapping.Entry:
    """The entry for gradients, which what is only ever added up has in common."""
    if entry.targets == ("encoder/registers",):
        return dataclasses.replace(entry, write=lambda w: (w, w))
    if entry.targets[0].endswith("/anchor"):
        return dataclasses.replace(entry, write=lambda first, rest: (first, np.concatenate([first, rest])))
    return entry


def _logits(tokenizer: Autoencoder, params: dict, latents: jax.Array) -> jax.Array:
    """float32 [B, h, w, K]: of the proxy codes."""
    name = "codes_out"
    _, kept = tokenizer.codec.decoder.apply(
        {"params": params["decoder"]},
        latents,
        capture_intermediates=lambda module, method: module.name == name,
        mutable=["intermediates"],
    )
    return kept["intermediates"][name]["__call__"][0].reshape(
        len(latents), *tokenizer.codec.decoder.ends.patches, -1
    )


def _unit(images: jax.Array) -> jax.Array:
    """From [-1, 1] to [0, 1]."""
    return (images + 1) / 2
