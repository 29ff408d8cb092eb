"""D-AR's sequential diffusion tokenizer (showlab/D-AR, D-AR-tokenizer_v1.pt): the authors' names beside ours.

Their time runs from noise to image, ours from the image to noise, so that the velocity has another sign. What arrays
don't tell is as configs/tokenizer_v1.yaml has it: tables of queries have rows to spare.
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
from vargen.interop.acdit import modulation
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.looking import LookingFlow
from vargen.tokenizers.registers import Registers
from vargen.tokenizers.transformer import Sizes
from vargen.tokenizers.vq import VQ

WHAT = "D-AR tokenizer"
IGNORED = ("diff_decoder.net.repa_out.*",)  # to the teacher's features, in training
WRAPPED = ("model", "ema")  # in the authors' PyTorch files
NET = "diff_decoder.net"
TOKENS, GROUPS = 256, 8
ROWS = 1024  # of a table of queries, most of them spare
SAMPLING = dict(steps=GROUPS, groups=GROUPS, release="window", solver="adams", shift=2.0, scale=0.6)
# Theirs: shift, scale, gate of the attention, then of the MLP.
MODULATIONS = (2, 5, 1, 4, 0, 3)


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Args:
      arrays: the authors', by name; only their shapes are looked at.
      levels: not used; registers are one level.

    Raises:
      UserError: an array that tells a size is missing, or what conditions the decoder has another width than it.
    """
    vocab, channels = shapes.pair(arrays, "quantize.embedding.weight", WHAT)
    width, _, patch, _ = shapes.shape(arrays, "patchify.weight", WHAT)
    wide, inner = shapes.pair(arrays, f"{NET}.cond_mlp.weight", WHAT)
    if wide != inner:
        raise UserError(
            f"{WHAT}: {NET}.cond_mlp.weight: expected as many columns as rows, found {wide} and {inner}"
        )
    decoder = config_part(
        "flow",
        width=wide,
        layers=shapes.count(arrays, f"{NET}.blocks.{{}}.attention.q.weight", WHAT),
        heads=shapes.usual_heads(wide),
        patch=math.isqrt(shapes.shape(arrays, f"{NET}.conv_in.weight", WHAT)[1] // 3),
        told_layers=shapes.count(arrays, "decoder_layers.{}.attention.q.weight"),
        looks="across",
        frequencies=wide,
        counts="up",
        **SAMPLING,
    )
    rank = shapes.pair(arrays, "query_embedding.weight", WHAT)[1]
    encoder = config_part(
        "registers",
        tokens=TOKENS,
        patch=patch,
        sees="causal",
        norm_patches=True,
        rank=rank if "query_linear.weight" in arrays else 0,
        latent_bias=False,
        places="rotary_patches",
        width=width,
        layers=shapes.count(arrays, "encoder_layers.{}.attention.q.weight", WHAT),
        heads=shapes.usual_heads(width),
        mlp="silu",
        qk_norm="layer",
        outer_affine=False,
        gates=True,
        decoder=decoder,
    )
    return config_part("vq", encoder=encoder, vocab=vocab, channels=channels, revive_every=0)


def table(tokenizer: Autoencoder) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    encoder, decoder = _checked(tokenizer)
    entries = m.array("quantizer/codebook", "quantize.embedding.weight")
    # The last codes seen in training: a statistic, no parameter.
    entries += m.buffer("quantize.codebook_used", lambda: np.zeros(65536, np.float32))
    entries += m.array("encoder/patches/rows_in/kernel", "patchify.weight", m.patches(encoder.ends.patch))
    entries += m.array("encoder/patches/rows_in/bias", "patchify.bias")
    entries += _rows("encoder/registers", "query_embedding.weight", encoder.ends.registers)
    if encoder.rank:
        entries += m.dense("encoder/registers_in", "query_linear")
    sizes = encoder.ends.sizes
    entries += _gated("encoder/blocks", "encoder_layers", sizes.layers)
    entries += m.pointwise("encoder/latents_out", "quant_in_conv", bias=False)
    entries += m.pointwise("decoder/registers/rows_in", "quant_out_conv", bias=False)
    entries += _rows("decoder/registers/places", "decoder_embedding.weight", decoder.ends.registers)
    if decoder.told_layers:
        entries += _gated("decoder/told_blocks", "decoder_layers", decoder.told_layers)
    entries += m.dense("decoder/told_in", f"{NET}.cond_mlp")
    side, channels = decoder.ends.patch, decoder.ends.image_channels
    entries += m.array("decoder/patches/rows_in/kernel", f"{NET}.conv_in.weight", _taken(side, channels))
    entries += m.array("decoder/patches/rows_in/bias", f"{NET}.conv_in.bias")
    entries += _looking(decoder.ends.sizes, decoder.shown_after)
    for name, end in (("kernel", "weight"), ("bias", "bias")):
        entries += m.array(f"decoder/patch_out/{name}", f"{NET}.conv_out.{end}", _given(side, channels))
    return entries


def _checked(tokenizer: Autoencoder) -> tuple[Registers, LookingFlow]:
    """Both ends of a tokenizer that the authors' program computes.

    Raises:
      UserError: another tokenizer.
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    if isinstance(tokenizer, VQ) and isinstance(encoder, Registers) and isinstance(decoder, LookingFlow):
        ends = encoder.ends
        if ends.places == "rotary_patches" and ends.sizes.gates and not (ends.latent_bias or decoder.forgets):
            return encoder, decoder
    raise UserError(
        f"{WHAT}: expected vq over registers with places=rotary_patches, gates, no latent_bias, and the decoder flow "
        "with looks=across and forget_rate=0, found another"
    )


def _rows(ours: str, theirs: str, count: int) -> list[m.Entry]:
    """The first rows of a table, which has spare ones."""

    def write(x: np.ndarray) -> m.Arrays:
        return (np.pad(x, [(0, max(ROWS - count, 0)), (0, 0)]),)

    return [m.Entry((ours,), (theirs,), lambda x: (x[:count],), write, rows=count, axis=0)]


def _attention(
    ours: str, theirs: str, names: tuple[str, ...] = ("query", "key", "value", "out")
) -> list[m.Entry]:
    """Of these products and the norms of queries and keys."""
    found = []
    for name, source in zip(("query", "key", "value", "out"), ("q", "k", "v", "proj"), strict=True):
        if name in names:
            found += m.dense(f"{ours}/{name}", f"{theirs}.{source}")
            if source in "qk":
                found += m.norm(f"{ours}/{name}_norm", f"{theirs}.{source}_norm")
    return found


def _mlp(ours: str, theirs: str) -> list[m.Entry]:
    return m.dense(f"{ours}/up", f"{theirs}.fc1") + m.dense(f"{ours}/down", f"{theirs}.fc2")


def _gated(ours: str, theirs: str, layers: int) -> list[m.Entry]:
    """Of a stack whose blocks have norms and gates of their own."""

    def layer(i: int) -> list[m.Entry]:
        to, source = f"{ours}/layers/block", f"{theirs}.{i}"
        found = _attention(f"{to}/mixer", f"{source}.attention") + _mlp(f"{to}/feed_forward", f"{source}.mlp")
        for n in (1, 2):
            found += m.norm(f"{to}/norm_{n}", f"{source}.norm{n}")
        sources = (f"{source}.gate1", f"{source}.gate2")
        return [*found, m.Entry((f"{ours}/layers/gates",), sources, lambda *x: (np.stack(x),), tuple)]

    return m.stacked(layers, layer)


def _looking(sizes: Sizes, first: int) -> list[m.Entry]:
    """Of the decoder's blocks, of which the first so many are a stack of their own."""

    def layer(i: int) -> list[m.Entry]:
        to, source = f"decoder/{'blocks' if i >= first else 'first_blocks'}/layers", f"{NET}.blocks.{i}"
        found = _attention(f"{to}/across", f"{source}.cross_attn", ("query", "out"))
        found += _attention(to, f"{source}.cross_attn", ("key", "value"))
        for name, module in (("told/up", "cond_embed.0"), ("told/down", "cond_embed.2")):
            found += m.dense(f"{to}/{name}", f"{source}.{module}")
        for n in (1, 2):
            found += m.dense(f"{to}/time_{n}", f"{source}.time_embed.mlp.{2 * n - 2}")
        found += _attention(f"{to}/block/mixer", f"{source}.attention")
        found += _mlp(f"{to}/block/feed_forward", f"{source}.mlp")
        return found + modulation(f"{to}/block/modulation", f"{source}.adaLN_modulation.1", MODULATIONS)

    early = m.stacked(first, layer) if first else []
    return early + m.stacked(sizes.layers - first, lambda i: layer(first + i))


def _taken(side: int, channels: int) -> m.Form:
    """A 1x1 convolution [D, C p p, 1, 1] of patches whose channels come first, [p p C, D]."""
    inner = m.patches(side)

    def write(w: np.ndarray) -> np.ndarray:
        return inner.write(w).reshape(w.shape[1], -1, 1, 1)

    return m.Form(lambda w: inner.read(w.reshape(len(w), channels, side, side)), write)


def _given(side: int, channels: int) -> m.Form:
    """The same the way back, [C p p, D, 1, 1] or [C p p], of the other sign: [D, p p C] or [p p C]."""

    def read(w: np.ndarray) -> np.ndarray:
        rest = -w.reshape(channels, side * side, -1).transpose(2, 1, 0)
        return rest.reshape((-1, len(w)) if w.ndim > 1 else len(w))

    def write(w: np.ndarray) -> np.ndarray:
        size = w.shape[-1]
        rest = -w.reshape(-1, side * side, channels).transpose(2, 1, 0)
        return rest.reshape((size, len(w), 1, 1) if w.ndim > 1 else size)

    return m.Form(read, write)
