"""FlexTok's tokenizer against its authors' outputs; latents of the VAE are the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import flextok, mapping
from vargen.interop.parity.golden import REPRODUCED, SINGLE, Golden, Result, close, exact, gradient_norms
from vargen.tokenizers.flowing import FlowCodec
from vargen.tokenizers.guidance import Guidance
from vargen.tokenizers.implicit import FSQ

# As the golden calls them, and the published files.
NAMES = {"enc_patch_embedder": "enc_patch_emb", "dec_noise_patch_embedder": "dec_noise_patch_emb"}
STEPS, TOP = 4, 1.0
GUIDES = dict(
    cfg1=None,
    cfg3=Guidance(3.0),
    apg3=Guidance(3.0, projected=True, momentum=-0.5, threshold=2.5, parallel=0.0),
)


def matches(golden: Golden) -> bool:
    """Whether it is a golden of FlexTok's tokenizer."""
    return f"{flextok.ENCODER}register_module.registers" in golden.weights


def built(golden: Golden) -> tuple[FSQ, list[mapping.Entry], dict]:
    """The tokenizer, the table of its parameters by the golden's names, and these."""
    published = {_renamed(name, NAMES): value for name, value in golden.weights.items()}
    part, sizes = flextok.part(published), golden.meta["dims"]
    head = dict(head_dim=sizes["head_dim"])
    config = dict(
        regularizer=dict(levels=sizes["levels"]),
        encoder=dict(module_dict=dict(enc_transformer=head)),
        decoder=dict(module_dict=dict(dec_transformer=head, dec_time_embedder=dict(max_timestep=TOP))),
    )
    flextok.tell(part, config)
    part.encoder.patch = sizes["patch"]
    latents = golden["in/lat"]
    tokenizer = tokenizers.build(part, latents.shape[2:], latents.shape[1])
    theirs = {ours: name for name, ours in NAMES.items()}
    table = [
        dataclasses.replace(e, sources=tuple(_renamed(s, theirs) for s in e.sources))
        for e in flextok.table(tokenizer)
    ]
    like = jax.eval_shape(tokenizer.init, jax.random.key(0))
    params = mapping.read(table, golden.weights, like, what=flextok.WHAT)
    return tokenizer, table, jax.tree.map(jnp.asarray, params)


def _renamed(name: str, names: dict[str, str]) -> str:
    """A name whose module has another in `names`."""
    return ".".join(names.get(word, word) for word in name.split("."))


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    tokenizer, table, params = built(golden)
    images, noise = (jnp.asarray(golden[f"in/{x}"]).transpose(0, 2, 3, 1) for x in ("lat", "noise"))
    t, keep = jnp.asarray(golden["in/t"]), golden["in/keep_k"]
    known = jnp.arange(tokenizer.grid.size) < keep[:, None, None]
    codec = tokenizer.codec
    if not isinstance(codec, FlowCodec):
        raise TypeError(f"expected a decoder that draws, found {type(codec).__name__}")

    def velocity(params, latents, noisy, known=None, without=None):
        features = codec.decoder.apply(
            {"params": params["decoder"]}, latents, known, noisy, t, without, method="features"
        )
        return (noisy - codec.last(params, features)) / t[:, None, None, None]

    def loss(params):
        z = codec.encode(params, images)
        straight, _, _, _ = tokenizer.bottleneck(params, tokenizer.init_stats(), images, jax.random.key(0))
        s = t[:, None, None, None]
        noisy = s * noise + (1 - s) * images
        v = velocity(params, straight, noisy)
        total = jnp.mean(jnp.square(v - (noise - images)))
        return total, dict(z=z[:, 0], quants=straight[:, 0], noised=noisy, v=v, loss=total)

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    tokens = jax.jit(tokenizer.encode)(params, images)
    if "out/tokens" in golden:
        yield exact("out/tokens", tokens, golden["out/tokens"])
    latents = tokenizer.latents(params["quantizer"], tokens)
    found |= dict(from_tokens=latents[:, 0])
    everywhere = jnp.ones(len(tokens), bool)
    run = jax.jit(velocity)
    found["v_keep"] = run(params, latents, found["noised"], known)
    found["v_null"] = run(params, latents, found["noised"], None, everywhere)
    for name, guide in GUIDES.items():
        own = dataclasses.replace(codec, steps=STEPS, guide=guide)
        found[f"sample_{name}"] = jax.jit(own.drawn)(params, latents, known, noise)
    for name, value in found.items():
        if f"out/{name}" in golden:
            value = np.moveaxis(value, -1, 1) if value.ndim == 4 else value
            yield close(f"out/{name}", value, golden[f"out/{name}"], REPRODUCED)
    yield from gradient_norms(golden, table, gradients, SINGLE, "grad_norm/")
