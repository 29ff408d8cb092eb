"""RQ-VAE (kakaobrain/rq-vae-transformer, stage1/model.pt): the authors' names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import autoencoder, shapes
from vargen.interop import mapping as m
from vargen.tokenizers.rq import RQ

WHAT = "RQ-VAE"
IGNORED = ()
WRAPPED = ("state_dict",)
CODEBOOK = "quantizer.codebooks.{}."


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part, of one table for all depths, as all published ones are.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    rows, channels = shapes.pair(arrays, CODEBOOK.format(0) + "weight", WHAT)
    depth = shapes.count(arrays, CODEBOOK + "weight")
    options: dict[str, Any] = {} if depth == 4 else dict(depth=depth)
    encoder = autoencoder.encoder_part(arrays, autoencoder.DIFFUSION, WHAT)
    return config_part("rq", encoder=encoder, vocab=rows - 1, channels=channels, temperature=0.5, **options)


def table(tokenizer: RQ) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer has a table for each depth.
    """
    if not tokenizer.shared:
        raise UserError(f"{WHAT}: expected the tokenizer rq with shared=True, found shared=False")
    entries = autoencoder.table(tokenizer, autoencoder.DIFFUSION)
    # Theirs ends with a row of zeros that stands for no code.
    padded = m.Form(lambda w: w[None, :-1], lambda w: np.pad(w[0], [(0, 1), (0, 0)]))
    leading = m.Form(lambda w: w[None], lambda w: w[0])
    for ours, theirs, form in (
        ("codebook", "weight", padded),
        ("size", "cluster_size_ema", leading),
        ("sums", "embed_ema", leading),
    ):
        sources = tuple(CODEBOOK.format(d) + theirs for d in range(tokenizer.depth))
        entries.append(_same(f"quantizer/{ours}", sources, form))
    return entries


def _same(target: str, sources: tuple[str, ...], form: m.Form) -> m.Entry:
    """One array that stands in the authors' file once for every depth."""

    def read(*arrays: np.ndarray) -> m.Arrays:
        different = [s for s, w in zip(sources, arrays, strict=True) if not np.array_equal(w, arrays[0])]
        if different:
            raise UserError(
                f"{WHAT}: expected {different[0]} to be {sources[0]} once more, found another table"
            )
        return (form.read(arrays[0]),)

    return m.Entry((target,), sources, read, lambda w: [form.write(w)] * len(sources))
