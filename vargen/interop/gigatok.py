"""GigaTok's tokenizers of registers (SilentView/GigaTok, VQ_SS256_e100.pt ... VQ_XLXXL256_e300.pt): the authors' names
beside ours.

Between rows and codes they have 256 channels, from rows without anything between two products, which are one here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import autoencoder, shapes
from vargen.interop import mapping as m
from vargen.tokenizers.across import AcrossDecoder, AcrossEncoder
from vargen.tokenizers.conv import ConvDecoder, ConvEncoder
from vargen.tokenizers.transformer import Sizes
from vargen.tokenizers.vq import VQ

WHAT = "GigaTok tokenizer"
IGNORED = ("s1to2decoder.distill_mlp.*",)  # to the teacher's features, in training
WRAPPED = ("model",)  # in the authors' PyTorch files
NAMES = dataclasses.replace(
    autoencoder.LLAMAGEN, reversed_up=True, middle=("mid.0", "", "mid.1"), up_conv="upsample.conv1"
)
ENCODER, DECODER = "s2to1encoder", "s1to2decoder"
BLOCK = "{}.transformer.{}"


def image_size(arrays: Mapping[str, Any]) -> int:
    """Side in pixels: of the table of places.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    places = shapes.shape(arrays, f"{ENCODER}.positional_embedding", WHAT)[0]
    levels = shapes.count(arrays, "encoder.conv_blocks.{}.res.0.conv1.weight", WHAT)
    return math.isqrt(places) * 2 ** (levels - 1)


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Args:
      arrays: the authors', by name; only their shapes are looked at.
      levels: not used; registers are one level.

    Raises:
      UserError: an array that tells a size is missing.
    """
    vocab, channels = shapes.pair(arrays, "quantize.embedding.weight", WHAT)
    (tokens, width, layers), inner = _size(arrays, ENCODER), _size(arrays, DECODER)[1:]
    options: dict[str, Any] = {}
    if inner != (width, layers):
        options = dict(
            decoder_width=inner[0], decoder_layers=inner[1], decoder_heads=shapes.usual_heads(inner[0])
        )
    found = {k: v for k, v in autoencoder.encoder_part(arrays, NAMES, WHAT).items() if k != "hidden"}
    stem = config_part(**found | dict(projection=0, middle_attention=False, adaptive=True, spread=True))
    if (between := shapes.shape(arrays, "post_quant_conv.weight", WHAT)[0]) != 256:
        options["stem_channels"] = between
    own = dict(tokens=tokens, stem=stem, width=width, layers=layers, heads=shapes.usual_heads(width))
    encoder = config_part("across", **own, **options)
    return config_part("vq", encoder=encoder, vocab=vocab, channels=channels, revive_every=0)


def table(tokenizer: VQ) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    if (
        isinstance(tokenizer, VQ)
        and isinstance(encoder, AcrossEncoder)
        and isinstance(decoder, AcrossDecoder)
    ):
        return _table(encoder, decoder)
    raise UserError(f"{WHAT}: expected the tokenizer vq over the encoder across, found another")


def _table(encoder: AcrossEncoder, decoder: AcrossDecoder) -> list[m.Entry]:
    """All entries."""
    entries = m.array("quantizer/codebook", "quantize.embedding.weight")
    # The last codes seen in training: a statistic, no parameter.
    entries += m.buffer("quantize.codebook_used", lambda: np.zeros(65536, np.float32))
    entries += _pixels(encoder, decoder)
    entries += m.dense("encoder/registers", f"{ENCODER}.global_proj")
    entries += _end("encoder", ENCODER, "encoder_embed", ("patch_places", "own_places"))
    entries += _projected(decoder.channels)
    entries += m.pointwise("decoder/latents_in", "post_quant_conv")
    entries += _end("decoder", DECODER, "decoder_embed", ("patch_places", "places"))
    entries += m.conv("decoder/pixels_in", f"{DECODER}.conv_out")
    first = decoder.shown_after
    entries += _blocks("encoder/blocks", ENCODER, encoder.sizes, range(encoder.sizes.layers))
    if first:
        entries += _blocks("decoder/first_blocks", DECODER, decoder.sizes, range(first))
    return entries + _blocks("decoder/blocks", DECODER, decoder.sizes, range(first, decoder.sizes.layers))


def _pixels(encoder: AcrossEncoder, decoder: AcrossDecoder) -> list[m.Entry]:
    """Of the convolutions, which have places of their own here.

    Raises:
      UserError: others than the authors' program has.
    """
    stem, pixels = encoder.stem, decoder.pixels
    if not isinstance(stem, ConvEncoder) or not isinstance(pixels, ConvDecoder):
        raise UserError(f"{WHAT}: expected the stem conv, found {type(stem).__name__}")
    if stem.projection or stem.middle_attention or not (pixels.adaptive and pixels.spread):
        raise UserError(
            f"{WHAT}: expected a stem with projection=0, adaptive and spread, without middle_attention, found another"
        )
    entries = autoencoder.ends(stem, pixels, NAMES)
    return m.moved({"encoder": "encoder/stem", "decoder": "decoder/pixels"}, entries)


def _end(end: str, theirs: str, embed: str, places: tuple[str, str]) -> list[m.Entry]:
    """Of what is around the blocks of an end."""
    flat = m.Form(lambda w: w[:, 0], lambda w: w[:, None])
    entries = m.norm(f"{end}/norm_in", f"{theirs}.ln_pre") + m.norm(f"{end}/norm_out", f"{theirs}.ln_post")
    entries += m.dense(f"{end}/rows_in", f"{theirs}.{embed}")
    entries += m.array(f"{end}/{places[0]}", f"{theirs}.positional_embedding", flat)
    return entries + m.array(f"{end}/{places[1]}", f"{theirs}.latent_token_positional_embedding", flat)


def _projected(between: int) -> list[m.Entry]:
    """Their two products from rows to codes, as one; it is written as the second, beside one that changes nothing."""

    def read(first, first_bias, second, bias):
        first, second = (x[:, :, 0, 0].astype(np.float64) for x in (first, second))
        return first.T @ second.T, second @ first_bias + bias

    def write(kernel, bias):
        width, channels = kernel.shape
        first, second = (
            np.zeros((between, width), kernel.dtype),
            np.eye(channels, between, dtype=kernel.dtype),
        )
        first[:channels] = kernel.T
        return first[:, :, None, None], np.zeros(between, bias.dtype), second[:, :, None, None], bias

    names = (f"{ENCODER}.conv_out.{{}}", "quant_conv.{}")
    sources = tuple(name.format(x) for name in names for x in ("weight", "bias"))
    return [m.Entry(("encoder/latents_out/kernel", "encoder/latents_out/bias"), sources, read, write)]


def _blocks(target: str, theirs: str, sizes: Sizes, which: range) -> list[m.Entry]:
    """Of the blocks of these numbers, in one stack."""

    def layer(i: int) -> list[m.Entry]:
        ours, source = f"{target}/layers", BLOCK.format(theirs, which[i])
        found = m.dense(f"{ours}/feed_forward/up", f"{source}.linear1")
        found += m.dense(f"{ours}/feed_forward/down", f"{source}.linear2")
        for n in (1, 2, 3):
            found += m.norm(f"{ours}/norm_{n}", f"{source}.norm{n}")
        for name, attention in (("self", "self_attn"), ("across", "multihead_attn")):
            three = [f"{ours}/{name}/{x}" for x in ("query", "key", "value")]
            found += m.split(
                [f"{x}/kernel" for x in three],
                f"{source}.{attention}.in_proj_weight",
                [sizes.width] * 3,
                m.DENSE,
            )
            found += m.split(
                [f"{x}/bias" for x in three], f"{source}.{attention}.in_proj_bias", [sizes.width] * 3
            )
            found += m.dense(f"{ours}/{name}/out", f"{source}.{attention}.out_proj")
        return found

    return m.stacked(len(which), layer)


def _size(arrays: Mapping[str, Any], end: str) -> tuple[int, int, int]:
    """(registers, width, layers) of an end."""
    layers = shapes.count(arrays, BLOCK.format(end, "{}") + ".norm1.weight", WHAT)
    tokens, _, width = shapes.shape(arrays, f"{end}.latent_token_positional_embedding", WHAT)
    return tokens, width, layers
