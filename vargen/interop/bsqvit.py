"""BSQ-ViT's tokenizers (zhaoyue-zephyrus/bsq-vit, checkpoints of 18 and 36 bits at 256 pixels): the authors' names
beside ours.

The highest bit of their codes is the first channel's, of ours the last's: a code's channels change places, between the
projections to and from them, and codes are the same numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes
from vargen.tokenizers.implicit import Signs
from vargen.tokenizers.vit import VitEncoder

WHAT = "BSQ-ViT tokenizer"
IGNORED = ()
WRAPPED = ("state_dict",)  # in the authors' PyTorch files
ONE = 18  # bits up to which a slot has one code
BITS = 9  # of each of several codes: the authors' default of a group
PARTS = "quantize.group_basis"
COLOURS = 3
BETA = 0.25  # of a sum over channels, whatever the config says: their program does not pass it on
OUT = "decoder.ffn.0"  # the layer before the decoder's last
BLOCK = "{}.transformer.resblocks.{}"


def image_size(arrays: Mapping[str, Any]) -> int:
    """Side in pixels: of the table of places.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    places = shapes.pair(arrays, "encoder.positional_embedding", WHAT)[0]
    return math.isqrt(places) * _patch(arrays)


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part: `bsq` over `vit`, whose heads have 64 channels.

    A slot has one code of up to 18 bits, or several of up to 9.

    Args:
      arrays: the authors', by name; only their shapes are looked at.
      levels: not used; one level always.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    channels, width = shapes.pair(arrays, "quant_embed.weight", WHAT)
    wide = shapes.shape(arrays, "post_quant_embed.weight", WHAT)[0]
    layers, deep = (
        shapes.count(arrays, BLOCK.format(end, "{}") + ".ln_1.weight", WHAT) for end in ("encoder", "decoder")
    )
    options: dict[str, Any] = {}
    if (wide, deep) != (width, layers):
        options = dict(decoder_width=wide, decoder_layers=deep, decoder_heads=max(1, wide // 64))
    if f"{OUT}.weight" in arrays:
        options["out_width"] = shapes.shape(arrays, f"{OUT}.weight", WHAT)[0]
    encoder = config_part(
        "vit",
        patch=_patch(arrays),
        width=width,
        layers=layers,
        heads=max(1, width // 64),
        positions="learned",
        mlp="gelu",
        norm_in=True,
        eps=1e-5,
        **options,
    )
    groups = 1 if channels <= ONE else next(n for n in range(2, channels + 1) if _fits(channels, n))
    # The entropy of all codes is summed over parts of so many bits; of more than 12 there is no such loss here.
    told = shapes.shape(arrays, PARTS, WHAT)[0] if PARTS in arrays else BITS
    bits = dict(entropy_bits=told) if told not in (BITS, *range(13, channels + 1)) else {}
    return config_part("bsq", encoder=encoder, channels=channels, groups=groups, beta=BETA * channels, **bits)


def table(tokenizer: Signs) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    codec = tokenizer.codec
    if not isinstance(codec.encoder, VitEncoder):
        raise UserError(f"{WHAT}: expected the encoder vit, found {type(codec.encoder).__name__}")
    trunk = dict(codec.encoder.trunk)
    if trunk["positions"] != "learned" or trunk["mlp"] != "gelu" or not trunk["norm_in"]:
        found = ", ".join(f"{k}={trunk[k]}" for k in ("positions", "mlp", "norm_in"))
        raise UserError(f"{WHAT}: expected positions=learned, mlp=gelu, norm_in=True, found {found}")
    order, patch = places(tokenizer.channels, tokenizer.groups), codec.encoder.patch
    moved = m.Form(lambda w: w[order].T, lambda w: w.T[order])
    entries = m.array("encoder/patch_in/kernel", "encoder.conv1.weight", _patches(patch, last=False))
    entries += m.array("encoder/projection/kernel", "quant_embed.weight", moved)
    entries += m.array(
        "encoder/projection/bias", "quant_embed.bias", m.Form(lambda w: w[order], lambda w: w[order])
    )
    moved = m.Form(lambda w: w.T[order], lambda w: w[order].T)
    entries += m.array("decoder/projection/kernel", "post_quant_embed.weight", moved)
    entries += m.array("decoder/projection/bias", "post_quant_embed.bias")
    for end, module in (("encoder", codec.encoder), ("decoder", codec.decoder)):
        entries += _trunk(end, dict(module.trunk))
    if codec.decoder.out_width:
        entries += m.dense("decoder/hidden", OUT)
    for name, theirs in (("kernel", "weight"), ("bias", "bias")):
        entries += m.array(
            f"decoder/patch_out/{name}", f"decoder.conv_out.{theirs}", _patches(patch, last=True)
        )
    bits = tokenizer.entropy_bits if tokenizer.channels % tokenizer.entropy_bits == 0 else tokenizer.channels
    for name, size in (("quantize.basis", tokenizer.channels), (PARTS, bits)):
        entries += m.buffer(name, functools.partial(_basis, size))
    return entries


def places(channels: int, groups: int) -> np.ndarray:
    """int [channels]: the authors' channel that ours is; the channels of each code in reverse, so its own inverse."""
    return np.arange(channels).reshape(groups, -1)[:, ::-1].ravel()


def _trunk(end: str, trunk: Mapping[str, Any]) -> list[m.Entry]:
    """Those of the places, the blocks and the norms around them."""
    ours = f"{end}/trunk"
    entries = m.array(f"{ours}/places", f"{end}.positional_embedding")
    entries += m.norm(f"{ours}/norm_in", f"{end}.ln_pre") + m.norm(f"{ours}/norm_out", f"{end}.ln_post")
    for i in range(trunk["layers"]):
        to, source = f"{ours}/block{i}", BLOCK.format(end, i)
        names = [f"{to}/mixer/{x}" for x in ("query", "key", "value")]
        sizes = [trunk["width"]] * 3
        entries += m.split([f"{n}/kernel" for n in names], f"{source}.attn.in_proj_weight", sizes, m.DENSE)
        entries += m.split([f"{n}/bias" for n in names], f"{source}.attn.in_proj_bias", sizes)
        entries += m.dense(f"{to}/mixer/out", f"{source}.attn.out_proj")
        entries += m.norm(f"{to}/norm_1", f"{source}.ln_1") + m.norm(f"{to}/norm_2", f"{source}.ln_2")
        entries += m.dense(f"{to}/feed_forward/up", f"{source}.mlp.c_fc")
        entries += m.dense(f"{to}/feed_forward/down", f"{source}.mlp.c_proj")
    return entries


def _patches(patch: int, last: bool) -> m.Form:
    """A layer from or (`last`) to patches: colour by colour there [c p p, ...], pixel by pixel here [..., p p c]."""
    sides = (COLOURS, patch, patch), (patch, patch, COLOURS)

    def read(w: np.ndarray) -> np.ndarray:
        w = w if last else w.T  # [c p p, ...]
        w = np.moveaxis(w.reshape(*sides[0], *w.shape[1:]), 0, 2).reshape(w.shape)
        return w.T if last else w

    def write(w: np.ndarray) -> np.ndarray:
        w = w.T if last else w
        w = np.moveaxis(w.reshape(*sides[1], *w.shape[1:]), 2, 0).reshape(w.shape)
        return w if last else w.T

    return m.Form(read, write)


def _basis(bits: int) -> np.ndarray:
    """int64 [bits]: what each bit counts."""
    return 2 ** np.arange(bits - 1, -1, -1, dtype=np.int64)


def _fits(channels: int, groups: int) -> bool:
    """Whether channels make so many codes of few enough bits."""
    return channels % groups == 0 and channels // groups <= BITS


def _patch(arrays: Mapping[str, Any]) -> int:
    """Pixels per side of a patch."""
    return math.isqrt(shapes.pair(arrays, "encoder.conv1.weight", WHAT)[1] // COLOURS)
