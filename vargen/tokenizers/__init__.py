"""Tokenizers: images <-> the content of slots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import jax.numpy as jnp

from vargen import parts
from vargen.errors import UserError
from vargen.limits import COUNT, SHARE, SIZE, Above, AtLeast, Between, OneOf, Text, divisors
from vargen.slots import Grid
from vargen.tokenizers import (
    assembly,
    binary,
    binned,
    companded,
    dynamic,
    hybrid,
    ibq,
    implicit,
    jpeg,
    product,
    product_levels,
    teacher_kmeans,
    transport,
)
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import Autoencoder, latent_grid
from vargen.tokenizers.kl import KL
from vargen.tokenizers.multiscale import MultiScaleVQ
from vargen.tokenizers.pyramid import PyramidKL, PyramidVQ
from vargen.tokenizers.rq import RQ, FollowedVQ
from vargen.tokenizers.tokenizer import Leveled
from vargen.tokenizers.vq import VQ
from vargen.tokenizers.within import Within


def build(
    part: Mapping[str, Any], image_size: int | tuple[int, ...], channels: int, dtype: Any = jnp.float32
):
    """The tokenizer that `part` names.

    Args:
      part: name and options; the option `encoder` is itself a part.
      image_size: pixels per side, or (height, width); or of clips (frames, height, width).
      channels: of the images.
      dtype: of the encoder's and the decoder's computation; quantisation is always float32.

    Raises:
      UserError: an unknown name or option, sizes that do not fit each other, a tokenizer of pictures alone for clips.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) > 2 and (name := part.get("name")) in TOKENIZERS and name not in CLIPS:
        raise UserError(f"config field tokenizer: expected one of {', '.join(CLIPS)} for clips, found {name}")
    context = dict(image_size=size, image_channels=channels, dtype=dtype)
    found = parts.build(TOKENIZERS, part, "tokenizer", **context)
    if isinstance(found, Autoencoder) and not isinstance(found, Within) and found.codec.draws:
        raise UserError(
            "config field tokenizer.encoder.decoder.draws: needs a tokenizer within another that reads pixels, part "
            f"within, reads='pixels', found {part.get('name')}"
        )
    return found


def build_vq(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    vocab: Annotated[int, Between(2, 2**24)] = 16384,
    channels: Annotated[int, SIZE] = 8,
    normalise: bool = True,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    codebook_weight: Annotated[float, AtLeast(0)] = 1.0,
    entropy_weight: Annotated[float, AtLeast(0)] = 0.0,
    entropy_temperature: Annotated[float, Above(0)] = 0.01,
    revive_every: Annotated[int, AtLeast(0)] = 100,
    revive_until: Annotated[float, SHARE] = 0.67,
    revive_threshold: Annotated[float, SHARE] = 0.03,
    kmeans: Annotated[int, Between(0, 1000)] = 0,
    temperature: Annotated[float, AtLeast(0)] = 0.0,
) -> VQ:
    """The part "vq": one code per latent; options as `VQ`'s attributes (the defaults are LlamaGen's)."""
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    return assembly.made(VQ, locals(), grid=latent_grid(codec))


def build_multiscale_vq(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    levels: Annotated[tuple[int | tuple[int, int], ...], SIZE] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    vocab: Annotated[int, Between(2, 2**24)] = 4096,
    channels: Annotated[int, SIZE] = 32,
    normalise: bool = False,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    codebook_weight: Annotated[float, AtLeast(0)] = 1.0,
    centre_weight: Annotated[float, AtLeast(0)] = 0.1,
    entropy_weight: Annotated[float, AtLeast(0)] = 0.0,
    entropy_temperature: Annotated[float, Above(0)] = 0.3,
    phi: Annotated[int, Between(0, 4096)] = 4,
    phi_ratio: Annotated[float, SHARE] = 0.5,
    level_dropout: Annotated[float, SHARE] = 0.0,
    level_dropout_from: Annotated[int, COUNT] = 1,
    revive_every: Annotated[int, AtLeast(0)] = 100,
    revive_until: Annotated[float, SHARE] = 0.67,
    revive_threshold: Annotated[float, SHARE] = 0.03,
    kmeans: Annotated[int, Between(0, 1000)] = 0,
) -> MultiScaleVQ:
    """The part "multiscale_vq": codes at several resolutions; the other options as `MultiScaleVQ`'s attributes.

    The defaults are VAR's.

    Args:
      levels: sides, or (height, width) pairs, coarse to fine; the last is the encoder's grid.

    Raises:
      UserError: the last level is not the encoder's grid, or a level is larger than it; levels that may be dropped
        and aren't there.
    """
    assembly.levels_that_stay(levels, level_dropout_from)
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    return assembly.made(
        MultiScaleVQ, locals(), grid=assembly.levels(levels, codec.grid, encoder, image_size)
    )


def build_pyramid_vq(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    levels: Annotated[tuple[int | tuple[int, int], ...], SIZE] = tuple(range(1, 17)),
    vocab: Annotated[int, Between(2, 2**24)] = 8912,
    channels: Annotated[int, SIZE] = 32,
    spread: Annotated[str, OneOf("direct", "whole")] = "direct",
    normalise: bool = True,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    codebook_weight: Annotated[float, AtLeast(0)] = 1.0,
    level_weight: Annotated[float, AtLeast(0)] = 1.0,
    entropy_weight: Annotated[float, AtLeast(0)] = 0.0,
    entropy_temperature: Annotated[float, Above(0)] = 0.01,
    revive_every: Annotated[int, AtLeast(0)] = 100,
    revive_until: Annotated[float, SHARE] = 0.67,
    revive_threshold: Annotated[float, SHARE] = 0.03,
    kmeans: Annotated[int, Between(0, 1000)] = 0,
) -> PyramidVQ:
    """The part "pyramid_vq": the picture's codes at several resolutions; the other options as `PyramidVQ`'s attributes.

    The defaults are FlexVAR's.

    Args:
      levels: sides, or (height, width) pairs, coarse to fine; the last is the encoder's grid.

    Raises:
      UserError: the last level is not the encoder's grid, or a level is larger than it; levels are to be decoded by
        what decodes one size alone.
    """
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    if level_weight and not codec.any_size and len(levels) > 1:
        raise UserError(
            "config field tokenizer.level_weight: needs an encoder that takes images of any size, such as conv, found "
            f"{encoder.get('name')} and {level_weight:g}"
        )
    grid = assembly.levels(levels, codec.grid, encoder, image_size)
    return assembly.made(PyramidVQ, locals(), temperature=0.0)


def build_kl(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    channels: Annotated[int, SIZE] = 16,
    kl_weight: Annotated[float, AtLeast(0)] = 1e-6,
    scale: Annotated[float, Above(0)] = 0.2325,
    measure: bool = False,
    exact: bool = False,
) -> KL:
    """The part "kl": continuous latents; options as `KL`'s attributes (the defaults are MAR's)."""
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1 if exact else 2, dtype)
    return assembly.made(KL, locals(), grid=latent_grid(codec), vocab=0)


def build_rq(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    vocab: Annotated[int, Between(2, 2**24)] = 16384,
    channels: Annotated[int, SIZE] = 256,
    depth: Annotated[int, Between(1, 64)] = 4,
    shared: bool = True,
    cell: Annotated[tuple[int, int], SIZE] = (1, 1),
    beta: Annotated[float, AtLeast(0)] = 0.25,
    decay: Annotated[float, Between(0, 1, below=True)] = 0.99,
    restart: bool = True,
    kmeans: Annotated[int, Between(0, 1000)] = 0,
    temperature: Annotated[float, AtLeast(0)] = 0.0,
) -> RQ:
    """The part "rq": several codes a slot; the other options as `RQ`'s attributes (the defaults are the paper's).

    Args:
      channels: of a latent; a code has as many for each latent of a cell.

    Raises:
      UserError: the latents' grid does not divide into cells; one table of several depths is to start by k-means.
    """
    if kmeans and shared and depth > 1:
        raise UserError(
            f"config field tokenizer.kmeans: needs a table for each depth, shared=False, or depth=1, found {kmeans} "
            f"and depth={depth}"
        )
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    if any(side % part for side, part in zip(codec.grid, cell, strict=True)):
        grid, found = ("x".join(map(str, x)) for x in (codec.grid, cell))
        raise UserError(
            f"config field tokenizer.cell: expected divisors of the latent grid {grid}, found {found}; for instance "
            f"{divisors(math.gcd(*codec.grid), max(cell))}"
        )
    height, width = (side // part for side, part in zip(codec.grid, cell, strict=True))
    return assembly.made(RQ, locals(), grid=Grid(((height, width),)), channels=channels * cell[0] * cell[1])


def build_vq_ema(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    vocab: Annotated[int, Between(2, 2**24)] = 512,
    channels: Annotated[int, SIZE] = 64,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    decay: Annotated[float, Between(0, 1, below=True)] = 0.99,
    restart: bool = True,
    kmeans: Annotated[int, Between(0, 1000)] = 0,
) -> FollowedVQ:
    """The part "vq_ema": a table that follows its vectors; options as `RQ`'s attributes (the defaults are VQ-VAE's)."""
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    own = dict(depth=1, shared=True, cell=(1, 1), temperature=0.0)
    return assembly.made(FollowedVQ, locals(), grid=latent_grid(codec), **own)


def build_pyramid_kl(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    levels: Annotated[tuple[int | tuple[int, int], ...], SIZE] = (1, 2, 4, 8, 16),
    channels: Annotated[int, SIZE] = 16,
    of: Annotated[str, OneOf("latents", "pictures")] = "latents",
    spread: Annotated[str, OneOf("direct", "whole")] = "whole",
    kl_weight: Annotated[float, AtLeast(0)] = 1e-6,
    scale: Annotated[float, Above(0)] = 0.2325,
    measure: bool = False,
) -> PyramidKL:
    """The part "pyramid_kl": continuous latents at several resolutions; the other options as `PyramidKL`'s attributes.

    The defaults are FlowAR's.

    Args:
      levels: sides, or (height, width) pairs, coarse to fine; the last is the encoder's grid.

    Raises:
      UserError: the last level is not the encoder's grid, or a level is larger than it; levels are to be pictures for
        an encoder of one size alone.
    """
    codec = assembly.codec(encoder, image_size, image_channels, channels, 2, dtype)
    if of == "pictures" and not codec.any_size:
        raise UserError(
            "config field tokenizer.of: pictures need an encoder that takes images of any size, such as conv, found "
            f"{encoder.get('name')}"
        )
    return assembly.made(
        PyramidKL,
        locals(),
        grid=assembly.levels(levels, codec.grid, encoder, image_size),
        vocab=0,
        exact=False,
    )


def build_within(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    outer: Mapping[str, Any],
    inner: Mapping[str, Any],
    reads: Annotated[str, OneOf("latents", "pixels")] = "latents",
    weights: Annotated[str, Text("a file's path")] = "",
) -> Within:
    """The part "within": a tokenizer of another's latents.

    Args:
      outer: the part of the autoencoder between pixels and latents, kl.
      inner: the tokenizer's part, whose images are these.
      reads: what the inner one encodes: those latents; or the pixels, where its decoder draws latents
        (`tokenizer.inner.encoder.decoder.draws`; Semanticist, arXiv 2503.08685).
      weights: the file of the outer one's parameters, WORKDIR/tokenizer/params.safetensors of `vargen import`.

    Raises:
      UserError: an outer one of codes or of several levels, or an inner one of no autoencoder, or that doesn't decode
        the outer's latents.
    """
    context: dict[str, Any] = dict(image_size=image_size, image_channels=image_channels, dtype=dtype)
    around = parts.build(TOKENIZERS, outer, "tokenizer.outer", **context)
    if not isinstance(around, KL) or len(around.grid.levels) > 1:
        raise UserError(f"config field tokenizer.outer: expected a part kl, found {outer.get('name')}")
    latents = (*around.codec.grid, around.channels)
    if reads == "latents":
        context |= dict(image_size=latents[:2], image_channels=latents[2])
    own = parts.build(TOKENIZERS, inner, "tokenizer.inner", **context)
    if not isinstance(own, Autoencoder) or isinstance(own, Leveled):
        raise UserError(
            "config field tokenizer.inner: expected an autoencoder of one level or of registers, found "
            f"{inner.get('name')}"
        )
    expected = latents if reads == "pixels" else ()
    if own.codec.draws != expected:
        raise UserError(
            f"config field tokenizer.inner.encoder.decoder.draws: expected {expected or 'none'} where reads is "
            f"{reads}, found {own.codec.draws or 'none'}"
        )
    return Within(
        codec=own.codec,
        image_size=image_size,
        image_channels=image_channels,
        grid=own.grid,
        vocab=own.vocab,
        channels=own.channels,
        inner=own,
        outer=around,
        reads=reads,
        weights=weights,
    )


TOKENIZERS = dict(
    vq=build_vq,
    multiscale_vq=build_multiscale_vq,
    multiscale_product_vq=product_levels.build,
    dynamic_vq=dynamic.build_dynamic_vq,
    hybrid_multiscale=hybrid.build_hybrid_multiscale,
    pyramid_vq=build_pyramid_vq,
    kl=build_kl,
    binned_kl=binned.build_binned_kl,
    binary=binary.build_binary,
    companded=companded.build_companded,
    pyramid_kl=build_pyramid_kl,
    rq=build_rq,
    vq_ema=build_vq_ema,
    vq_wae=transport.build_vq_wae,
    fsq=implicit.build_fsq,
    lfq=implicit.build_lfq,
    bsq=implicit.build_bsq,
    ibq=ibq.build_ibq,
    product_vq=product.build_product_vq,
    qlae=product.build_qlae,
    teacher_kmeans=teacher_kmeans.build,
    within=build_within,
    jpeg=jpeg.build,
)

# Those of clips too: a latent is a latent wherever it lies.
CLIPS = "vq kl binned_kl binary vq_wae fsq lfq bsq ibq product_vq qlae".split()
