"""LARP's tokenizer of clips (hywang66/LARP-L-long-tokenizer): the authors' names beside ours.

For Python: `part`, `tokenizers.build` of clips as large as the authors', `systems.read`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.direct import Direct
from vargen.tokenizers.registers import Registers
from vargen.tokenizers.transformer import Sizes
from vargen.tokenizers.vq import VQ

WHAT = "LARP tokenizer"
IGNORED = ("prior_model.*",)  # a loss of the training
PATCHES = "x_embedder.proj"


def part(arrays: Mapping[str, Any]) -> ConfigDict:
    """The tokenizer's part.

    Args:
      arrays: the authors', by name; only their shapes are looked at.

    Raises:
      UserError: an array that tells a size is missing.
    """
    tokens, width = shapes.pair(arrays, "encoder_latent_query_embed", WHAT)
    vocab, channels = shapes.pair(arrays, "bottleneck.regularizer.embedding.weight", WHAT)
    inner = shapes.shape(arrays, "final_layer.norm_final.weight", WHAT)[0]
    layers, deep = (
        shapes.count(arrays, f"{end}.blocks.{{}}.norm1.weight", WHAT) for end in ("encoder", "decoder")
    )
    decoder = (
        dict(width=inner, layers=deep, heads=shapes.usual_heads(inner))
        if (inner, deep) != (width, layers)
        else {}
    )
    _, _, frames, patch, _ = shapes.shape(arrays, f"{PATCHES}.weight", WHAT)
    encoder = config_part(
        "registers",
        tokens=tokens,
        patch=patch,
        patch_frames=frames,
        norm_out=False,
        eps=1e-5,  # timm's blocks of its time; later ones have 1e-6
        width=width,
        layers=layers,
        heads=shapes.usual_heads(width),
        decoder=config_part("direct", **decoder),
    )
    drawn = dict(temperature=0.03, revive_every=0)
    return config_part("vq", encoder=encoder, vocab=vocab, channels=channels, **drawn)


def table(tokenizer: Autoencoder) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    ends = isinstance(encoder, Registers) and isinstance(decoder, Direct) and not encoder.norm_out
    plain = ends and encoder.stem is None and not encoder.ends.anchor and len(encoder.ends.patches) > 2
    if not (isinstance(tokenizer, VQ) and plain):
        raise UserError(
            f"{WHAT}: expected the tokenizer vq of clips over registers without norm_out, stem and anchor, and the "
            "decoder direct, found another"
        )
    entries = m.array("encoder/patches/rows_in/kernel", f"{PATCHES}.weight", _patches(encoder.ends.sides))
    entries += m.array("encoder/patches/rows_in/bias", f"{PATCHES}.bias")
    entries += m.array("encoder/patches/places", "encoder_patch_pe", m.LEADING)
    entries += m.array("encoder/registers", "encoder_latent_query_embed")
    entries += m.dense("encoder/latents_out", "bottleneck.in_linear")
    entries += m.array("quantizer/codebook", "bottleneck.regularizer.embedding.weight")
    entries += m.dense("decoder/registers/rows_in", "bottleneck.out_linear")
    entries += m.array("decoder/registers/places", "decoder_latent_pe", m.LEADING)
    entries += m.array("decoder/places", "decoder_patch_query_embed", m.LEADING)
    entries += m.array("decoder/mask", "decoder_patch_query_token_type_embed", m.LEADING)
    entries += m.norm("decoder/norm_out", "final_layer.norm_final")
    entries += m.dense("decoder/patch_out", "final_layer.linear")
    for end, sizes in (("encoder", encoder.ends.sizes), ("decoder", decoder.ends.sizes)):
        entries += m.stacked(sizes.layers, functools.partial(_layer, end, sizes))
    return entries


def _layer(end: str, sizes: Sizes, i: int) -> list[m.Entry]:
    """Of one block, whose queries, keys and values have no biases."""
    ours, theirs = f"{end}/blocks/layers/block", f"{end}.blocks.{i}"
    three = [f"{ours}/mixer/{name}" for name in ("query", "key", "value")]
    found = m.norm(f"{ours}/norm_1", f"{theirs}.norm1") + m.norm(f"{ours}/norm_2", f"{theirs}.norm2")
    found += m.split_dense(three, f"{theirs}.attn.qkv", [sizes.width] * 3, bias=False)
    for name in three:
        found += m.constant(f"{name}/bias", lambda: np.zeros(sizes.width, np.float32))
    found += m.dense(f"{ours}/mixer/out", f"{theirs}.attn.proj")
    found += m.dense(f"{ours}/feed_forward/up", f"{theirs}.mlp.fc1")
    return found + m.dense(f"{ours}/feed_forward/down", f"{theirs}.mlp.fc2")


def _patches(sides: tuple[int, ...]) -> m.Form:
    """A convolution [D, C, t, p, p] that moves by its own size, whose products here are of rows [t p p C, D]."""
    return m.Form(
        lambda w: w.transpose(2, 3, 4, 1, 0).reshape(-1, len(w)),
        lambda w: w.reshape(*sides, -1, w.shape[-1]).transpose(4, 3, 0, 1, 2),
    )
