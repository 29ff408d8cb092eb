"""HART's tokenizer against its authors' outputs; of a golden without an encoder, the quantiser alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from vargen import tokenizers
from vargen.config import part
from vargen.interop import mapping, systems, var_tokenizer
from vargen.interop.hart_tokenizer import WHAT
from vargen.interop.parity.golden import REPRODUCED, SINGLE, Golden, Result, close, exact, gradient_norms
from vargen.tokenizers.hybrid import HybridMultiScaleVQ


@dataclasses.dataclass(frozen=True)
class Latents:
    """A codec whose images are the latents themselves.

    Attributes:
      grid: (h, w).
    """

    grid: tuple[int, int]

    def encode(self, params: dict, images: jax.Array) -> jax.Array:
        """The same."""
        return images

    def decode(self, params: dict, latents: jax.Array) -> jax.Array:
        """The same."""
        return latents


def matches(golden: Golden) -> bool:
    """Whether it is a golden of HART's tokenizer."""
    config = golden.meta.get("config")
    return isinstance(config, dict) and config.get("quantizer_type") == "var_hybrid"


def built(golden: Golden) -> tuple[HybridMultiScaleVQ, dict]:
    """The tokenizer and its parameters; of a golden without an encoder, over latents float32 [B, h, w, C]."""
    c, whole = golden.meta["config"], "in/img" in golden
    options = dict(beta=c["beta"], phi_ratio=abs(c["quant_resi"]), centre_weight=0.0)
    levels, channels = tuple(c["v_patch_nums"]), c["z_channels"]
    if whole:
        options = {**var_tokenizer.part(golden.weights, levels), **options}
    else:
        encoder = part("patch", patch=1, width=8, blocks=0)
        sizes = dict(levels=levels, vocab=c["vocab_size"], channels=channels, phi=c["share_quant_resi"])
        options |= dict(encoder=encoder, **sizes)
    side = golden["in/img"].shape[2] if whole else levels[-1]
    tokenizer = tokenizers.build(dict(options, name="hybrid_multiscale"), side, 3 if whole else channels)
    if whole:
        return tokenizer, jax.tree.map(jnp.asarray, systems.read(var_tokenizer, tokenizer, golden.weights))
    like = dict(quantizer=jax.eval_shape(tokenizer.init, jax.random.key(0))["quantizer"])
    params = mapping.read(var_tokenizer.quantiser(tokenizer), golden.weights, like, what=WHAT)
    tokenizer = dataclasses.replace(tokenizer, codec=Latents(tokenizer.codec.grid))
    return tokenizer, jax.tree.map(jnp.asarray, dict(params, encoder={}, decoder={}))


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    tokenizer, params = built(golden)
    whole = "in/img" in golden
    images = jnp.asarray(golden["in/img" if whole else "in/f"]).transpose(0, 2, 3, 1)
    found = jax.jit(lambda params, images: _outputs(tokenizer, params, images))(params, images)
    for name, value in found.items():
        output = f"out/{name}"
        if output not in golden:
            continue
        if name.startswith(("idx_", "hb_")) and name != "hb_frest":
            yield exact(output, value.reshape(golden[output].shape), golden[output])
        else:
            # Rounding of the latents is in all that is left of them.
            yield close(output, value, golden[output], SINGLE if whole else REPRODUCED)
    if whole:
        yield from _training(golden, tokenizer, params, images)


def _outputs(tokenizer: HybridMultiScaleVQ, params: dict, images: jax.Array) -> dict[str, Any]:
    """What the authors' code gives for images [B, H, W, C], by their names; latents and images NCHW."""
    quantizer = params["quantizer"]
    latents = tokenizer.codec.encode(params, images)
    codes = tokenizer.encode(params, images)
    rest = tokenizer.residual(params, images, codes)
    levels = tokenizer.split(codes)
    outputs: dict[str, Any] = {"f": _nchw(latents)}
    for name, share in (("fhat_cont", 1.0), ("fhat_disc", 0.0)):
        own = dataclasses.replace(tokenizer, continuous=share)
        straight, loss, _, _ = own.bottleneck(params, own.init_stats(), images, jax.random.key(0))
        outputs |= {name: _nchw(straight), "vq_loss": loss}
    outputs["rec_cont"] = _nchw(tokenizer.decode_hybrid(params, codes, rest))
    outputs["rec_disc"] = _nchw(tokenizer.decode(params, codes))
    # Theirs is before the last level's codes are taken off.
    outputs["hb_frest"] = rest + tokenizer.vectors(quantizer, levels[-1])
    f_hat, last = tokenizer.start(len(images)), len(levels) - 1
    for level, found in enumerate(levels):
        outputs |= {f"idx_{level}": found, f"hb_{level}": found}
        if level < last:
            f_hat = tokenizer.absorb(quantizer, f_hat, found, level)
            wanted = tokenizer.resample(f_hat, level + 1).reshape(
                -1, *tokenizer.grid.levels[level + 1], tokenizer.channels
            )
        else:
            f_hat = wanted = tokenizer.completed(quantizer, codes, rest)
        outputs |= {f"ar_fhat_{level}": _nchw(f_hat), f"ar_next_{level}": _nchw(wanted)}
    return outputs


def _training(
    golden: Golden, tokenizer: HybridMultiScaleVQ, params: dict, images: jax.Array
) -> Iterator[Result]:
    """The loss of pictures decoded from the encoder's latents, and its gradients' norms."""
    whole = dataclasses.replace(tokenizer, continuous=1.0)

    def total(params: dict) -> jax.Array:
        latents, loss, _, _ = whole.bottleneck(params, whole.init_stats(), images, jax.random.key(0))
        return jnp.mean(jnp.abs(whole.decode_latents(params, latents) - images)) + loss

    found, gradients = jax.jit(jax.value_and_grad(total))(params)
    if "out/total" in golden:
        yield close("out/total", found, golden["out/total"], SINGLE)
    yield from gradient_norms(golden, var_tokenizer.table(tokenizer), gradients, SINGLE, "grad_norm/")


def _nchw(x: jax.Array) -> jax.Array:
    return x.transpose(0, 3, 1, 2)
