"""TiTok's tokenizers (bytedance/1d-tokenizer, tokenizer_titok_l32.bin, tatitok_bl32_vq.bin ...): names beside ours.

Those with proxy codes (L-32, B-64, S-128) hold the decoder of MaskGIT's VQGAN, and their registers are scrambled; later
ones make pixels themselves, of codes or of latents, and TA-TiTok's (arXiv 2501.07730) read captions beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen import tokenizers
from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import maskgit_vqgan, shapes
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.direct import Direct
from vargen.tokenizers.kl import KL
from vargen.tokenizers.pooled import PooledDecoder
from vargen.tokenizers.registers import Registers
from vargen.tokenizers.transformer import Sizes
from vargen.tokenizers.vq import VQ

WHAT = "TiTok tokenizer"
IGNORED = ("quantize.embed_prob",)  # how often codes are used, of those trained in clusters
WRAPPED = ()
VQGAN = "pixel_"  # before the names of MaskGIT's VQGAN
CODEBOOK = "quantize.embedding.weight"
TEXT = "decoder.text_guidance_proj"
TEXT_PLACES = "decoder.text_guidance_positional_embedding"


def part(arrays: Mapping[str, Any], levels: tuple | None = None) -> ConfigDict:
    """The tokenizer's part.

    Args:
      arrays: the authors', by name; only their shapes are looked at.
      levels: not used; registers are one level.

    Raises:
      UserError: an array that tells a size is missing.
    """
    proxies = f"{VQGAN}{CODEBOOK}" in arrays
    tokens, width = shapes.pair(arrays, "latent_tokens", WHAT)
    layers, inner = _size(arrays, "encoder"), _size(arrays, "decoder")
    decoder = (
        dict(width=inner[0], layers=inner[1], heads=shapes.usual_heads(inner[0])) if inner != layers else {}
    )
    if proxies:
        codes, channels = shapes.pair(arrays, f"{VQGAN}{CODEBOOK}", WHAT)
        decoder |= dict(codes=codes, pixels=_outer(arrays, codes, channels).encoder)
        decoder |= dict(pixel_channels=channels) if channels != 256 else {}
    else:
        decoder["smoothed"] = True
    if TEXT_PLACES in arrays:
        decoder["text_tokens"] = shapes.pair(arrays, TEXT_PLACES, WHAT)[0]
        decoder["text_channels"] = shapes.pair(arrays, f"{TEXT}.weight", WHAT)[1]
    encoder = config_part(
        "registers",
        tokens=tokens,
        patch=shapes.shape(arrays, "encoder.patch_embed.weight", WHAT)[2],
        scrambled=proxies,
        unit=True,
        anchor=True,
        norm_in=True,
        eps=1e-5,
        width=width,
        layers=layers[1],
        heads=shapes.usual_heads(width),
        decoder=config_part("direct", **decoder),
    )
    if CODEBOOK not in arrays:
        channels = shapes.shape(arrays, "encoder.conv_out.weight", WHAT)[0] // 2
        return config_part("kl", encoder=encoder, channels=channels, scale=1.0)
    vocab, channels = shapes.pair(arrays, CODEBOOK, WHAT)
    return config_part(
        "vq", encoder=encoder, vocab=vocab, channels=channels, normalise=proxies, revive_every=0
    )


def table(tokenizer: Autoencoder) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    encoder, decoder = _checked(tokenizer)
    if isinstance(tokenizer, VQ):
        entries = m.array("quantizer/codebook", CODEBOOK)
    elif isinstance(tokenizer, KL):
        entries = m.constant(
            "quantizer/scale", lambda: np.full(tokenizer.channels, tokenizer.scale, np.float32)
        )
    else:
        raise UserError(f"{WHAT}: expected the tokenizer vq or kl, found {type(tokenizer).__name__}")
    entries += m.array(
        "encoder/patches/rows_in/kernel", "encoder.patch_embed.weight", m.patches(encoder.ends.patch)
    )
    entries += m.array("encoder/patches/rows_in/bias", "encoder.patch_embed.bias")
    entries += _sum("encoder/registers", "latent_tokens", "encoder.latent_token_positional_embedding")
    entries += m.pointwise("encoder/latents_out", "encoder.conv_out")
    entries += m.array("decoder/mask", "decoder.mask_token", m.LEADING)
    entries += m.dense("decoder/registers/rows_in", "decoder.decoder_embed")
    entries += m.array("decoder/registers/places", "decoder.latent_token_positional_embedding")
    if decoder.texts is not None:
        entries += m.dense("decoder/text_in", TEXT) + m.array("decoder/text_places", TEXT_PLACES)
    entries += _end("encoder", "encoder/patches/places", encoder.ends.sizes)
    entries += _end("decoder", "decoder/places", decoder.ends.sizes)
    if decoder.pixels is None:
        entries += m.pointwise("decoder/patch_out", "decoder.ffn.0")
        return entries + (m.conv("decoder/conv_out", "decoder.conv_out") if decoder.smoothed else [])
    entries += m.pointwise("decoder/codes_in", "decoder.ffn.0")
    entries += m.pointwise("decoder/codes_out", "decoder.ffn.2")
    return entries + _pixels(tokenizer, decoder)


def _checked(tokenizer: Autoencoder) -> tuple[Registers, Direct]:
    """Both ends of a tokenizer that the authors' program computes.

    Raises:
      UserError: another tokenizer.
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    if isinstance(encoder, Registers) and isinstance(decoder, Direct):
        if encoder.ends.anchor and encoder.ends.norm_in and encoder.stem is None:
            return encoder, decoder
    raise UserError(
        f"{WHAT}: expected the encoder registers with anchor, norm_in and decoder direct, without a stem, found "
        "another"
    )


def _pixels(tokenizer: Autoencoder, decoder: Direct) -> list[m.Entry]:
    """Of the decoder and the codes of MaskGIT's VQGAN."""
    outer = decoder.pixels
    if not isinstance(outer, PooledDecoder) or not decoder.codes:
        raise UserError(f"{WHAT}: expected a decoder with pixels=part('pooled') and codes, found another")
    made = maskgit_vqgan.of_sizes(
        outer.width, outer.multipliers, outer.blocks, decoder.codes, decoder.pixel_channels
    )
    own = tokenizers.build(made, tokenizer.image_size, tokenizer.image_channels)
    names = {"quantizer/codebook": "decoder/codebook"}
    entries = []
    for entry in m.inside(VQGAN, maskgit_vqgan.table(own)):
        if not entry.targets[0].startswith("encoder/"):
            target = entry.targets[0]
            target = names.get(target, target.replace("decoder/", "decoder/pixels/"))
            entries += [m.Entry((target,), entry.sources, entry.read, entry.write)]
    return entries


def _end(end: str, places: str, sizes: Sizes) -> list[m.Entry]:
    """Of the rows and the blocks of the encoder or the decoder."""
    # Their first place is that of the class, which nothing else is ever added to.
    entries = [
        m.Entry(
            (f"{end}/anchor", places),
            (f"{end}.class_embedding", f"{end}.positional_embedding"),
            lambda first, table: (first + table[:1], table[1:]),
            lambda first, table: (np.zeros_like(first), np.concatenate([first, table])),
        )
    ]
    entries += m.norm(f"{end}/norm_in", f"{end}.ln_pre") + m.norm(f"{end}/norm_out", f"{end}.ln_post")

    def layer(i: int) -> list[m.Entry]:
        ours, theirs = f"{end}/blocks/layers/block", f"{end}.transformer.{i}"
        three = [f"{ours}/mixer/{name}" for name in ("query", "key", "value")]
        found = m.norm(f"{ours}/norm_1", f"{theirs}.ln_1") + m.norm(f"{ours}/norm_2", f"{theirs}.ln_2")
        found += m.split(
            [f"{x}/kernel" for x in three], f"{theirs}.attn.in_proj_weight", [sizes.width] * 3, m.DENSE
        )
        found += m.split([f"{x}/bias" for x in three], f"{theirs}.attn.in_proj_bias", [sizes.width] * 3)
        found += m.dense(f"{ours}/mixer/out", f"{theirs}.attn.out_proj")
        found += m.dense(f"{ours}/feed_forward/up", f"{theirs}.mlp.c_fc")
        return found + m.dense(f"{ours}/feed_forward/down", f"{theirs}.mlp.c_proj")

    return entries + m.stacked(sizes.layers, layer)


def _sum(target: str, first: str, second: str) -> list[m.Entry]:
    """What two of theirs add up to; the second is written as zeros."""
    return [m.Entry((target,), (first, second), lambda a, b: (a + b,), lambda w: (w, np.zeros_like(w)))]


def _size(arrays: Mapping[str, Any], end: str) -> tuple[int, int]:
    """(width, layers) of an end."""
    layers = shapes.count(arrays, f"{end}.transformer.{{}}.ln_1.weight", WHAT)
    return shapes.pair(arrays, f"{end}.positional_embedding", WHAT)[1], layers


def _outer(arrays: Mapping[str, Any], codes: int, channels: int) -> ConfigDict:
    """The part of MaskGIT's VQGAN, of which there is the decoder, and the table."""
    inside = m.Inside(VQGAN, arrays)
    width = shapes.shape(inside, "decoder.norm_out.weight", WHAT)[0]
    first = "decoder.up.{}.block.0.norm2.weight"
    levels = range(shapes.count(inside, first, WHAT))
    multipliers = tuple(shapes.shape(inside, first.format(i))[0] // width for i in levels)
    blocks = shapes.count(inside, "decoder.up.0.block.{}.norm2.weight", WHAT)
    return maskgit_vqgan.of_sizes(width, multipliers, blocks, codes, channels)
