"""ImageFolder's and XQ-GAN's tokenizers (qiuk6/XQ-GAN, MSVR10P2-4096/best_ckpt.pt; qiuk6/RobustTok, XQGAN-4096.pt): the
authors' names beside ours.

Both ends are DINOv2's transformers in timm's names. What a branch scales its result by is part of the last product
here, and rows that are only ever added up are one. Of several codes a place each is a quantiser of its own, of one
level or of several; a single code has one level.
"""

from __future__ import annotations

import math
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
from vargen.tokenizers.product import ProductVQ
from vargen.tokenizers.product_levels import ProductMultiScaleVQ
from vargen.tokenizers.registers import Registers
from vargen.tokenizers.transformer import Sizes
from vargen.tokenizers.vq import VQ

WHAT = "ImageFolder tokenizer"
# The teachers of the losses, and what the program computes anyway.
IGNORED = ("semantic_model.*", "detail_model.*", "sem_linear.*", "*lvl1LC", "*ema_vocab_hit_SV")
WRAPPED = ("model",)  # in the authors' PyTorch files
PUBLISHED = {11: (1, 1, 2, 3, 3, 4, 5, 6, 8, 11)}  # sides of the levels by the last, which no array tells
ONE, EACH = "quantize.", "quantizes.{}."  # before the names of the only quantiser, or of each
TABLE, PHI = "embedding.weight", "quant_resi.qresi_ls.{}"


def image_size(arrays: Mapping[str, Any]) -> int:
    """Side in pixels: of the table of places.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    places = shapes.shape(arrays, "encoder.model.pos_embed", WHAT)[1] - 1
    return math.isqrt(places) * _patch(arrays)


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Args:
      arrays: the authors', by name; only their shapes are looked at.
      levels: sides of the levels; None: those of the published files.

    Raises:
      UserError: an array that tells a size is missing, or there are several levels that aren't known.
    """
    groups = shapes.count(arrays, EACH + TABLE) or 1
    first = EACH.format(0) if EACH.format(0) + TABLE in arrays else ONE
    vocab, channels = shapes.pair(arrays, first + TABLE, WHAT)
    registers = shapes.shape(arrays, "encoder.latent_tokens", WHAT)[1] // groups
    (width, layers), inner = _size(arrays, "encoder"), _size(arrays, "decoder")
    decoder = (
        dict(width=inner[0], layers=inner[1], heads=shapes.usual_heads(inner[0]))
        if inner != (width, layers)
        else {}
    )
    encoder = config_part(
        "registers",
        tokens=registers,
        patch=_patch(arrays),
        square=True,
        abreast=groups,
        placed=True,
        anchor=True,
        width=width,
        layers=layers,
        heads=shapes.usual_heads(width),
        decoder=config_part("direct", **decoder),
    )
    own = dict(encoder=encoder, vocab=vocab, channels=groups * channels, revive_every=0)
    phi = shapes.count(arrays, first + PHI + ".weight")
    if not phi:
        return config_part("vq", **own) if first == ONE else config_part("product_vq", groups=groups, **own)
    side = math.isqrt(registers)
    if first == ONE or not (levels or side in PUBLISHED):
        known = ", ".join(map(str, PUBLISHED))
        raise UserError(f"{WHAT}: expected levels of several codes, the last of side {known}, found {side}")
    levels = levels or PUBLISHED[side]
    return config_part("multiscale_product_vq", groups=groups, levels=levels, phi=phi, **own)


def table(tokenizer: Autoencoder) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    encoder, decoder = _checked(tokenizer)
    entries = m.array(
        "encoder/patches/rows_in/kernel",
        "encoder.model.patch_embed.proj.weight",
        m.patches(encoder.ends.patch),
    )
    entries += m.array("encoder/patches/rows_in/bias", "encoder.model.patch_embed.proj.bias")
    entries += m.pointwise("encoder/latents_out", "quant_conv") + rows(encoder.abreast)
    entries += m.array("decoder/mask", "decoder.mask_token", m.LEADING)
    entries += m.pointwise("decoder/registers/rows_in", "post_quant_conv")
    entries += m.dense("decoder/patch_out", "decoder.to_pixel.model")
    for end, sizes in (("encoder", encoder.ends.sizes), ("decoder", decoder.ends.sizes)):
        entries += m.norm(f"{end}/norm_out", f"{end}.model.norm") + _blocks(end, sizes)
    return entries + quantisers(tokenizer)


def rows(groups: int) -> list[m.Entry]:
    """Of the rows: class token and its place, level rows, places and registers in sums, which are written as one."""

    def read(token, places, levels, *registers):
        first, others = places[0, :1], places[0, 1:]
        own = [r[0] + np.repeat(levels[1:] - levels[0], r.shape[1] // groups, axis=0) for r in registers]
        offsets = own or [levels[1:] - levels[0]]
        return (token[0] + first + levels[:1], others + levels[0], *offsets)

    def write(anchor, places, third):
        table = np.concatenate([np.zeros_like(anchor), places])[None]
        nothing = np.zeros((1 + groups, anchor.shape[1]), anchor.dtype)
        return anchor[None], table, nothing, third[None]

    def write_level(anchor, places, level):
        token, table, _, _ = write(anchor, places, level)
        return token, table, np.concatenate([np.zeros_like(level), level])

    names = "{}.model.cls_token {}.model.pos_embed {}.lvl_embed.weight"
    ends = [("encoder", "registers", " {}.latent_tokens", write), ("decoder", "level", "", write_level)]
    return [
        m.Entry(
            (f"{end}/anchor", f"{end}/places", f"{end}/{third}"),
            tuple((names + more).replace("{}", end).split()),
            read,
            written,
        )
        for end, third, more, written in ends
    ]


def quantisers(tokenizer: Autoencoder) -> list[m.Entry]:
    """Those of the quantisers alone.

    Raises:
      UserError: another kind of tokenizer.
    """
    if isinstance(tokenizer, VQ):
        return m.array("quantizer/codebook", ONE + TABLE)
    if not isinstance(tokenizer, ProductVQ | ProductMultiScaleVQ):
        found = type(tokenizer).__name__
        raise UserError(
            f"{WHAT}: expected the tokenizer vq, product_vq or multiscale_product_vq, found {found}"
        )
    phi = tokenizer.phi if isinstance(tokenizer, ProductMultiScaleVQ) else 0

    def kernel(g: int, i: int) -> list[m.Entry]:
        name = EACH.format(g) + PHI.format(i)
        found = m.array("quantizer/phi_kernel", f"{name}.weight", m.CONV)
        return found + m.array("quantizer/phi_bias", f"{name}.bias")

    def each(g: int) -> list[m.Entry]:
        found = m.array("quantizer/codebook", EACH.format(g) + TABLE)
        return found + (m.stacked(phi, lambda i: kernel(g, i)) if phi else [])

    return m.stacked(tokenizer.groups, each)


def _checked(tokenizer: Autoencoder) -> tuple[Registers, Direct]:
    """Both ends of a tokenizer that the authors' program computes.

    Raises:
      UserError: another tokenizer.
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    if isinstance(encoder, Registers) and isinstance(decoder, Direct) and encoder.stem is None:
        if encoder.ends.placed and encoder.ends.anchor and not encoder.ends.norm_in:
            return encoder, decoder
    raise UserError(
        f"{WHAT}: expected the encoder registers with placed, anchor and decoder direct, without norm_in and stem, "
        "found another"
    )


def _blocks(end: str, sizes: Sizes) -> list[m.Entry]:
    """Of the blocks of the encoder or the decoder."""

    def layer(i: int) -> list[m.Entry]:
        ours, theirs = f"{end}/blocks/layers/block", f"{end}.model.blocks.{i}"
        three = [f"{ours}/mixer/{name}" for name in ("query", "key", "value")]
        found = m.norm(f"{ours}/norm_1", f"{theirs}.norm1") + m.norm(f"{ours}/norm_2", f"{theirs}.norm2")
        found += m.split_dense(three, f"{theirs}.attn.qkv", [sizes.width] * 3)
        found += m.dense(f"{ours}/feed_forward/up", f"{theirs}.mlp.fc1")
        found += m.scaled(f"{ours}/mixer/out", f"{theirs}.attn.proj", f"{theirs}.ls1.gamma")
        return found + m.scaled(f"{ours}/feed_forward/down", f"{theirs}.mlp.fc2", f"{theirs}.ls2.gamma")

    return m.stacked(sizes.layers, layer)


def _size(arrays: Mapping[str, Any], end: str) -> tuple[int, int]:
    """(width, layers) of an end."""
    layers = shapes.count(arrays, f"{end}.model.blocks.{{}}.norm1.weight", WHAT)
    return shapes.shape(arrays, f"{end}.model.norm.weight", WHAT)[0], layers


def _patch(arrays: Mapping[str, Any]) -> int:
    """Pixels per side of a patch."""
    return shapes.shape(arrays, "encoder.model.patch_embed.proj.weight", WHAT)[2]
