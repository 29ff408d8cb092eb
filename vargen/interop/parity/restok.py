"""ResTok's tokenizers against their authors' outputs: latents, codes, pictures of prefixes, losses, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import mapping, restok, systems
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, norms, unscaled
from vargen.tokenizers import semantic
from vargen.tokenizers.vq import VQ

MAPS = ("vf_proj.weight", "vf_proj_dec.weight")  # to the teacher's features


def matches(golden: Golden) -> bool:
    """Whether it is a golden of a tokenizer of ResTok's."""
    return {"encoder.level_embedding.0", "decoder.latent_mask_token"} <= golden.weights.keys()


def built(golden: Golden) -> tuple[VQ, dict]:
    """The tokenizer and its parameters; what arrays don't tell is as `meta` says."""
    part, images = restok.part(golden.weights), golden["in/img"]
    part.encoder.heads = golden.meta["heads"]
    part.encoder.stem.groups = golden.meta["groups"]
    tokenizer = tokenizers.build(part, images.shape[2:], images.shape[1])
    return tokenizer, jax.tree.map(jnp.asarray, systems.read(restok, tokenizer, golden.weights))


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    tokenizer, params = built(golden)
    images = 2 * jnp.asarray(golden["in/img"].transpose(0, 2, 3, 1)) - 1
    codec, margin = tokenizer.codec, golden.meta["margin"]
    pooled = jnp.asarray(golden["in/aux_cls"])[:, :, 0, 0]
    places = jnp.asarray(golden["in/aux_feature"].transpose(0, 2, 3, 1))
    maps = {name: jnp.asarray(golden.weights[name]) for name in MAPS}

    def loss(params: dict, maps: dict) -> tuple[jax.Array, dict[str, Any]]:
        to_whole, to_places = (maps[name][:, :, 0, 0].T for name in MAPS)
        z, kept = codec.encoder.apply(
            {"params": params["encoder"]},
            images,
            capture_intermediates=lambda module, method: module.name == "merged",
            mutable=["intermediates"],
        )
        merged = kept["intermediates"]["merged"]["__call__"][0]
        through = tokenizer.bottleneck(params, tokenizer.init_stats(), images, jax.random.key(0))[0]
        image, taught = codec.decode(params, through), codec.taught(params, through, None)
        found = dict(
            l2=jnp.mean(jnp.square(image - images)) / 4,  # theirs lie from 0 to 1
            whole_loss=semantic.cosine(jnp.mean(merged @ to_whole, axis=(1, 2)), pooled, margin),
            place_loss=semantic.cosine(taught @ to_places, places, margin),
        )
        total = jnp.sum(jnp.stack([*found.values()]))
        own = dict(z=z, zq=through, dec=(image + 1) / 2, taught=taught)
        own["merged"] = merged.reshape(len(merged), 1, -1, merged.shape[-1])
        return total, found | {k: x.transpose(0, 3, 1, 2) for k, x in own.items()} | dict(total=total)

    def outputs(params: dict) -> dict[str, Any]:
        codes = tokenizer.encode(params, images)
        latents = tokenizer.latents(params["quantizer"], codes)
        counts = np.array([golden.meta["mixed"], [golden.meta["first"]] * len(images)])
        known = np.arange(codes.shape[1]) < counts[..., None, None]
        first = tokenizer.first(golden.meta["first"])
        found = dict(
            dec_from_tokens=tokenizer.decode(params, codes),
            dec_mixed=codec.decode(params, latents, jnp.asarray(known[0])),
            dec_first4=first.decode(params, codes[:, : golden.meta["first"]]),
        )
        found = {k: (x.transpose(0, 3, 1, 2) + 1) / 2 for k, x in found.items()}
        return found | dict(indices=codes[:, None])

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, found), (gradients, of_maps) = run(params, maps)
    for name, value in (found | jax.jit(outputs)(params)).items():
        output = f"out/{name}"
        if output in golden:
            same = name == "indices"
            yield (
                exact(output, value, golden[output])
                if same
                else close(output, value, golden[output], REPRODUCED)
            )
    theirs = mapping.write(restok.table(tokenizer), jax.tree.map(np.asarray, gradients))
    theirs |= jax.tree.map(np.asarray, of_maps)
    yield from norms(golden, unscaled(theirs, golden.weights, restok.SCALES), REPRODUCED, "grad_norm/")
