"""Semanticist's tokenizers (tennant/semanticist, semanticist_tok_XL.pkl ...): the authors' names beside ours.

Their files hold the encoder, which reads pixels, and the DiT, which draws latents of MAR's autoencoder. That is a file
of its own, whose names stand here after `OUTER`, as in the authors' module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import acdit, mar_kl, shapes
from vargen.interop import mapping as m
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.diffusing import Diffusion
from vargen.tokenizers.kl import KL
from vargen.tokenizers.registers import Registers
from vargen.tokenizers.transformer import Sizes
from vargen.tokenizers.within import Within

WHAT = "Semanticist tokenizer"
OUTER = "vae."
# What draws features towards DINOv2's in training, and a table of numbers 0, 1, ...
IGNORED = (
    "dit.projector.*",
    "repa_encoder.*",
    "nested_sampler.*",
    *(OUTER + name for name in mar_kl.IGNORED),
)
WRAPPED = ()
HEADS = {1152: 16}  # by width; others have 64 channels to a head


def part(arrays: Mapping[str, Any], levels: tuple | None = None) -> ConfigDict:
    """The tokenizer's part.

    Args:
      arrays: the authors', by name, those of the autoencoder among them; only their shapes are looked at.
      levels: not used; registers are one level.

    Raises:
      UserError: an array that tells a size is missing.
    """
    outer = mar_kl.part(m.Inside(OUTER, arrays))
    down = 2 ** (len(outer.encoder.get("multipliers", (1, 1, 2, 2, 4))) - 1)
    return config_part("within", outer=outer, inner=inner(arrays, image_size(arrays) // down), reads="pixels")


def inner(arrays: Mapping[str, Any], side: int) -> ConfigDict:
    """The part of the tokenizer whose decoder draws latents, `side` of them down and across.

    Raises:
      UserError: an array that tells a size is missing.
    """
    channels, width = shapes.pair(arrays, "encoder2slot.weight", WHAT)
    drawn = shapes.shape(arrays, "dit.x_embedder.proj.weight", WHAT)
    outputs = shapes.shape(arrays, "dit.final_layer.linear.weight", WHAT)[0]
    decoder = config_part(
        "diffusion",
        patch=drawn[2],
        draws=(side, side, drawn[1]),
        width=drawn[0],
        layers=shapes.count(arrays, "dit.blocks.{}.attn.proj.weight", WHAT),
        heads=HEADS.get(drawn[0], shapes.usual_heads(drawn[0])),
        mlp="gelu_tanh",
        places="waves",
        absent="latents",
        forget_rate=0.1,
        guidance=3.0,
    )
    if outputs == drawn[1] * drawn[2] ** 2:
        decoder.variance = "fixed"
    encoder = config_part(
        "registers",
        tokens=shapes.shape(arrays, "encoder.slot_embed", WHAT)[1],
        patch=shapes.shape(arrays, "encoder.patch_embed.proj.weight", WHAT)[2],
        sees="causal",
        nested="uniform",
        standard=True,
        unit=True,
        anchor=True,
        width=width,
        layers=shapes.count(arrays, "encoder.blocks.{}.norm1.weight", WHAT),
        heads=shapes.usual_heads(width),
        decoder=decoder,
    )
    return config_part("kl", encoder=encoder, channels=channels, scale=1.0, exact=True)


def image_size(arrays: Mapping[str, Any]) -> int:
    """Pixels per side.

    Raises:
      UserError: an array that tells a size is missing.
    """
    places = shapes.shape(arrays, "encoder.pos_embed", WHAT)[1]
    count = places - 1 - shapes.shape(arrays, "encoder.slot_embed", WHAT)[1]
    return math.isqrt(max(count, 0)) * shapes.shape(arrays, "encoder.patch_embed.proj.weight", WHAT)[2]


def table(tokenizer: Within | KL) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes, or for the inner one of it.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    if isinstance(tokenizer, Within):
        outer = m.inside(OUTER, mar_kl.table(tokenizer.outer))
        return table(tokenizer.inner) + m.under("outer/", outer)  # type: ignore[arg-type]  # which is checked there
    encoder, decoder = _checked(tokenizer)
    count, slots = math.prod(encoder.ends.patches), encoder.ends.registers
    entries = m.constant("quantizer/scale", lambda: np.full(tokenizer.channels, tokenizer.scale, np.float32))
    entries += _projection("encoder/patches/rows_in", "encoder.patch_embed.proj", encoder.ends.patch)
    entries += [rows(count, slots)] + blocks("encoder/blocks", "encoder.blocks", encoder.ends.sizes, False)
    entries += m.norm("encoder/norm_out", "encoder.norm") + m.dense("encoder/latents_out", "encoder2slot")
    entries += m.array("decoder/registers/null", "dit.null_cond", m.LEADING)
    entries += m.dense("decoder/registers/rows_in", "dit.autoenc_cond_embedder")
    entries += _projection("decoder/patches/rows_in", "dit.x_embedder.proj", decoder.ends.patch)
    entries += m.buffer("dit.pos_embed", lambda: np.asarray(decoder.waves)[None])
    for i in (1, 2):
        entries += m.dense(f"decoder/time_{i}", f"dit.t_embedder.mlp.{2 * i - 2}")
    entries += blocks("decoder/blocks", "dit.blocks", decoder.ends.sizes, True, decoder.shown_after)
    entries += acdit.modulation("decoder/modulation", "dit.final_layer.adaLN_modulation.1", (1, 0))
    return entries + m.dense("decoder/patch_out", "dit.final_layer.linear")


def _checked(tokenizer: Autoencoder) -> tuple[Registers, Diffusion]:
    """Both ends of a tokenizer that the authors' program computes.

    Raises:
      UserError: another tokenizer.
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    if isinstance(tokenizer, KL) and isinstance(encoder, Registers) and isinstance(decoder, Diffusion):
        if encoder.ends.anchor and decoder.absent == "latents" and decoder.places == "waves":
            return encoder, decoder
    raise UserError(
        f"{WHAT}: expected kl over registers with anchor, decoder diffusion with absent=latents and places=waves, "
        "found another"
    )


def rows(patches: int, slots: int) -> m.Entry:
    """Of the class, the patches and the registers, to each of which there a row of the table of places is added."""

    def read(first, places, registers):
        own = np.split(places[0], [1, 1 + patches])
        return first[0] + own[0], own[1], registers[0] + own[2]

    def write(first, places, registers):
        table = np.concatenate([first, places, registers])[None]
        return np.zeros_like(first)[None], table, np.zeros_like(registers)[None]

    theirs = ("encoder.cls_token", "encoder.pos_embed", "encoder.slot_embed")
    return m.Entry(("encoder/anchor", "encoder/patches/places", "encoder/registers"), theirs, read, write)


def blocks(ours: str, theirs: str, sizes: Sizes, modulated: bool, first: int = 0) -> list[m.Entry]:
    """Blocks, with norms of their own or modulated by the time; the first so many are a stack of their own."""

    def layer(i: int) -> list[m.Entry]:
        stack = ours if i >= first else ours.replace("blocks", "first_blocks")
        block, other = f"{stack}/layers/block", f"{theirs}.{i}"
        names = [f"{block}/mixer/{name}" for name in ("query", "key", "value")]
        found = m.split_dense(names, f"{other}.attn.qkv", [sizes.width] * 3)
        found += m.dense(f"{block}/mixer/out", f"{other}.attn.proj")
        found += m.dense(f"{block}/feed_forward/up", f"{other}.mlp.fc1")
        found += m.dense(f"{block}/feed_forward/down", f"{other}.mlp.fc2")
        if not modulated:
            return (
                found
                + m.norm(f"{block}/norm_1", f"{other}.norm1")
                + m.norm(f"{block}/norm_2", f"{other}.norm2")
            )
        # Theirs: shift, scale, gate of the attention, then of the MLP.
        order = (2, 5, 1, 4, 0, 3)
        return found + acdit.modulation(f"{block}/modulation", f"{other}.adaLN_modulation.1", order)

    early = m.stacked(first, layer) if first else []
    return early + m.stacked(sizes.layers - first, lambda i: layer(first + i))


def _projection(target: str, source: str, side: int) -> list[m.Entry]:
    """The product of patches, there a convolution that moves by its own size."""
    return m.array(f"{target}/kernel", f"{source}.weight", m.patches(side)) + m.array(
        f"{target}/bias", f"{source}.bias"
    )
