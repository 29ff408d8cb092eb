"""MAR's autoencoder against its authors' outputs."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import mar_kl, systems
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close


def matches(golden: Golden) -> bool:
    """Whether it is a golden of MAR's autoencoder."""
    quantised = any(name.startswith("quantize.") for name in golden.weights)
    return "encoder.mid.attn_1.q.weight" in golden.weights and not quantised


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    images = golden["in/img"].transpose(0, 2, 3, 1)
    tokenizer = tokenizers.build(mar_kl.part(golden.weights), images.shape[1:3], images.shape[3])
    params = jax.tree.map(jnp.asarray, systems.read(mar_kl, tokenizer, golden.weights))

    @jax.jit
    def run(params, images):
        def divergence(image):
            stats = tokenizer.init_stats()
            return tokenizer.bottleneck(params, stats, image[None], jax.random.key(0))[3]["kl"]

        latents = tokenizer.encode(params, images)
        # Ours are scaled for the generator.
        mean, std = jnp.split(tokenizer.moments(params, images) / tokenizer.scale, 2, axis=-1)
        image = tokenizer.decode(params, latents)
        return {
            "out/moments": tokenizer.codec.encode(params, images),
            "out/mean": mean.reshape(-1, *tokenizer.codec.grid, tokenizer.channels),
            "out/std": std.reshape(-1, *tokenizer.codec.grid, tokenizer.channels),
            "out/dec": image,
            "out/kl": jax.lax.map(divergence, images),
        }

    for output, found in run(params, images).items():
        if output in golden:
            found = np.moveaxis(found, -1, 1) if found.ndim == 4 else found
            yield close(output, found, golden[output], REPRODUCED)
