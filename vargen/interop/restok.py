"""ResTok's tokenizers (Kwai-Kolors/ResTok; xushu-me/restok_l_128.r256_in1k on the hub): the authors' names beside ours.

Their registers are scrambled as those of TiTok's first files are, before the products that make latents of each level.
What a branch scales its result by is part of the last product here. No array tells how many registers are kept at
least, nor whether patches and registers are residuals: that is as in the published file's config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import maskgit_vqgan, shapes
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.direct import Direct
from vargen.tokenizers.pooled import PooledDecoder, PooledEncoder
from vargen.tokenizers.registers import Registers
from vargen.tokenizers.transformer import Sizes
from vargen.tokenizers.vq import VQ

WHAT = "ResTok tokenizer"
IGNORED = (
    "vf_proj.weight",
    "vf_proj_dec.weight",
    "foundation_model.*",
)  # the teacher, and maps to its features
WRAPPED = ()
VQGAN = "pixel_"  # before the names of MaskGIT's VQGAN
CODEBOOK, TAUGHT = "quantize.embedding.weight", "decoder.feat_mask_token"
# What no array tells.
USUAL = dict(nested="levels", nested_least=4, nested_rate=0.2, begins="residuals", finer="residuals")
BLOCK = "{}.blocks.{}"
SCALES = {"gamma_1": "attn.proj", "gamma_2": "mlp.fc2"}  # of which layers' results


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Args:
      arrays: the authors', by name; only their shapes are looked at.
      levels: not used; each has as many registers as all before it, but the first two, which have one.

    Raises:
      UserError: an array that tells a size is missing.
    """
    vocab, channels = shapes.pair(arrays, CODEBOOK, WHAT)
    size, inner = _size(arrays, "encoder"), _size(arrays, "decoder")
    decoder: dict[str, Any] = dict(taught=True) if TAUGHT in arrays else {}
    decoder |= _sized(*inner) if inner != size else {}
    stem = _stem(arrays)
    found = maskgit_vqgan.USUAL | stem
    count = shapes.count(arrays, "encoder.conv_out.{}.weight", WHAT)
    options = dict(apart=True, dropped="latent", scrambled=True, **USUAL)
    blocks = dict(norm_in=True, places="rotary", qk_norm="layer", key_bias=False, eps=1e-5, **_sized(*size))
    if (between := shapes.shape(arrays, "encoder.patch_embed.weight", WHAT)[1]) != 256:
        options["stem_channels"] = between
    encoder = config_part(
        "registers",
        tokens=(1, *(2**i for i in range(count - 1))),
        patch=2 ** (len(found["multipliers"]) - 1),
        sees="levels",
        stages=shapes.count(arrays, "encoder.level_embedding.{}", WHAT),
        stem=config_part("pooled", standard=True, **stem),
        decoder=config_part("direct", **decoder),
        **options,
        **blocks,
    )
    return config_part("vq", encoder=encoder, vocab=vocab, channels=channels, revive_every=0)


def table(tokenizer: Autoencoder) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    encoder, decoder = _checked(tokenizer)
    count = len(encoder.ends.levels)
    entries = m.array("quantizer/codebook", CODEBOOK) + _pixels(encoder, decoder)
    entries += m.pointwise("encoder/patches/rows_in", "encoder.patch_embed")
    entries += m.array("encoder/finest", "encoder.level_embedding.0")
    merged = [f"encoder.level_embedding.{i}" for i in range(1, encoder.stages)]
    entries += m.joined("encoder/blocks/merged", merged, [1] * len(merged))
    for end, target in (("encoder", "encoder/levels"), ("decoder", "decoder/registers/levels")):
        names = [f"{end}.latent_token_level_embedding.{i}" for i in range(count)]
        entries += m.joined(target, names, [1] * count)
        entries += m.norm(f"{end}/norm_in", f"{end}.ln_pre") + m.norm(f"{end}/norm_out", f"{end}.ln_post")
    for i in range(count):
        entries += m.pointwise(f"encoder/latents_out/level{i}", f"encoder.conv_out.{i}")
        entries += m.dense(f"decoder/registers/rows_in/level{i}", f"decoder.decoder_embed.{i}")
    entries += m.array("decoder/mask", "decoder.mask_token", m.LEADING)
    entries += m.array("decoder/taught", TAUGHT, m.LEADING) if decoder.taught else []
    entries += m.array("decoder/registers/dropped", "decoder.latent_mask_token", m.LEADING)
    entries += m.pointwise("decoder/pixels_in", "decoder.ffn")
    return entries + _blocks("encoder", encoder.ends.sizes) + _blocks("decoder", decoder.ends.sizes)


def _checked(tokenizer: Autoencoder) -> tuple[Registers, Direct]:
    """Both ends of a tokenizer that the authors' program computes.

    Raises:
      UserError: another tokenizer.
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    if isinstance(tokenizer, VQ) and isinstance(encoder, Registers) and isinstance(decoder, Direct):
        ends, merges = encoder.ends, encoder.stages > 1 and encoder.begins != "table"
        if merges and ends.rotary and ends.apart and ends.norm_in and ends.dropped == "latent":
            return encoder, decoder
    raise UserError(
        f"{WHAT}: expected the tokenizer vq over registers of places rotary, with stages, begins, apart, norm_in and "
        "dropped latent, found another"
    )


def _pixels(encoder: Registers, decoder: Direct) -> list[m.Entry]:
    """Of the convolutions.

    Raises:
      UserError: others than the authors' program has.
    """
    stem = encoder.stem
    if not isinstance(stem, PooledEncoder) or not isinstance(decoder.pixels, PooledDecoder):
        raise UserError(f"{WHAT}: expected the stem pooled, found another")
    if not stem.standard:
        raise UserError(f"{WHAT}: expected a stem with standard=True, found False")
    entries = m.inside(VQGAN, maskgit_vqgan.layers(stem.multipliers, stem.blocks))
    return m.moved({"encoder": "encoder/stem", "decoder": "decoder/pixels"}, entries)


def _blocks(end: str, sizes: Sizes) -> list[m.Entry]:
    """Of the blocks of the encoder or the decoder."""

    def layer(i: int) -> list[m.Entry]:
        ours, theirs = f"{end}/blocks/layers/block", BLOCK.format(end, i)
        mixer, attention = f"{ours}/mixer", f"{theirs}.attn"
        three = [f"{mixer}/{name}" for name in ("query", "key", "value")]
        found = m.norm(f"{ours}/norm_1", f"{theirs}.norm1") + m.norm(f"{ours}/norm_2", f"{theirs}.norm2")
        found += m.split_dense(three, f"{attention}.qkv", [sizes.width] * 3, bias=False)
        for name, short in (("query", "q"), ("value", "v")):
            found += m.array(f"{mixer}/{name}/bias", f"{attention}.{short}_bias")
        for name, short in (("query", "q"), ("key", "k")):
            found += m.norm(f"{mixer}/{name}_norm", f"{attention}.{short}_norm")
        found += m.dense(f"{ours}/feed_forward/up", f"{theirs}.mlp.fc1")
        layers = f"{mixer}/out", f"{ours}/feed_forward/down"
        for target, (scale, source) in zip(layers, SCALES.items(), strict=True):
            found += m.scaled(target, f"{theirs}.{source}", f"{theirs}.{scale}")
        return found

    return m.stacked(sizes.layers, layer)


def _stem(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the convolutions that aren't the usual."""
    inside = m.Inside(VQGAN, arrays)
    found = maskgit_vqgan.sizes(inside)
    return {k: v for k, v in found.items() if v != maskgit_vqgan.USUAL[k]}


def _size(arrays: Mapping[str, Any], end: str) -> tuple[int, int]:
    """(width, layers) of an end."""
    layers = shapes.count(arrays, BLOCK.format(end, "{}") + ".norm1.weight", WHAT)
    return shapes.shape(arrays, f"{end}.ln_post.weight", WHAT)[0], layers


def _sized(width: int, layers: int) -> dict[str, int]:
    return dict(width=width, layers=layers, heads=shapes.usual_heads(width))
