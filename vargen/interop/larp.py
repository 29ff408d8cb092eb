"""LARP's tokenizer of clips (hywang66/LARP-L-long-tokenizer): the authors' names beside ours.

Every `frames` pictures of a clip are patches together. Here they are one picture of as many times the colours, and
those that follow stand below it (`folded`): pixels and rows come in the same order, and places are tables. Configs and
commands know square pictures alone, so this is for Python: `part`, `tokenizers.build`, `systems.read`.
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
from vargen.tokenizers.reading import Direct
from vargen.tokenizers.registers import Registers
from vargen.tokenizers.transformer import Sizes
from vargen.tokenizers.vq import VQ

WHAT = "LARP tokenizer"
IGNORED = ("prior_model.*",)  # a loss of the training
COLOURS = 3
PATCHES = "x_embedder.proj"


def part(arrays: Mapping[str, Any]) -> ConfigDict:
    """The tokenizer's part, of clips that are `folded`.

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
    encoder = config_part(
        "registers",
        tokens=tokens,
        patch=shapes.shape(arrays, f"{PATCHES}.weight", WHAT)[3],
        norm_out=False,
        eps=1e-5,  # timm's blocks of its time; later ones have 1e-6
        width=width,
        layers=layers,
        heads=shapes.usual_heads(width),
        decoder=config_part("direct", **decoder),
    )
    drawn = dict(temperature=0.03, revive_every=0)
    return config_part("vq", encoder=encoder, vocab=vocab, channels=channels, **drawn)


def frames(arrays: Mapping[str, Any]) -> int:
    """How many pictures of a clip are patches together.

    Raises:
      UserError: the array that tells it is missing.
    """
    return shapes.shape(arrays, f"{PATCHES}.weight", WHAT)[2]


def folded(clips: Any, count: int) -> Any:
    """Clips as pictures: [B, T, H, W, C] -> [B, T / count * H, W, count * C]."""
    batch, length, height, width, channels = clips.shape
    x = clips.reshape(batch, length // count, count, height, width, channels).transpose(0, 1, 3, 4, 2, 5)
    return x.reshape(batch, length // count * height, width, count * channels)


def unfolded(images: Any, count: int, height: int) -> Any:
    """The inverse of `folded` for pictures of so many rows: [B, T / count * H, W, count * C] -> [B, T, H, W, C]."""
    batch, rows, width, channels = images.shape
    x = images.reshape(batch, rows // height, height, width, count, channels // count)
    return x.transpose(0, 1, 4, 2, 3, 5).reshape(
        batch, rows // height * count, height, width, channels // count
    )


def table(tokenizer: Autoencoder) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    ends = isinstance(encoder, Registers) and isinstance(decoder, Direct) and not encoder.norm_out
    if not (isinstance(tokenizer, VQ) and ends) or encoder.stem is not None or encoder.ends.anchor:
        raise UserError(
            f"{WHAT}: expected the tokenizer vq over registers without norm_out, stem and anchor, and the decoder "
            "direct, found another"
        )
    patch = encoder.ends.patch
    entries = m.array("encoder/patches/rows_in/kernel", f"{PATCHES}.weight", _patches(patch))
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
    for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
        entries += m.array(f"decoder/patch_out/{ours}", f"final_layer.linear.{theirs}", _pixels(patch))
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


def _patches(side: int) -> m.Form:
    """A convolution [D, C, t, p, p] that moves by its own size, whose products here are of rows [p p t C, D]."""
    return m.Form(
        lambda w: w.transpose(3, 4, 2, 1, 0).reshape(-1, len(w)),
        lambda w: w.reshape(side, side, -1, COLOURS, w.shape[-1]).transpose(4, 3, 2, 0, 1),
    )


def _pixels(side: int) -> m.Form:
    """A layer's results [t p p C, ...], which here are [..., p p t C]."""

    def read(w: np.ndarray) -> np.ndarray:
        x = w.reshape(-1, side, side, COLOURS, *w.shape[1:])
        return np.moveaxis(x, 0, 2).reshape(w.shape).T

    def write(w: np.ndarray) -> np.ndarray:
        x = w.T.reshape(side, side, -1, COLOURS, *w.shape[:-1])
        return np.moveaxis(x, 2, 0).reshape(w.T.shape)

    return m.Form(read, write)
