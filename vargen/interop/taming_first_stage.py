"""The VQGAN inside a file of taming-transformers' transformer (cin_transformer/checkpoints/last.ckpt)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.interop import mapping as m
from vargen.interop import taming_vqgan
from vargen.tokenizers.vq import VQ

WHAT = taming_vqgan.WHAT
PREFIX = "first_stage_model."
IGNORED = (f"{PREFIX}loss.*", "cond_stage_model.*", "transformer.*")
WRAPPED = taming_vqgan.WRAPPED


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part, see `taming_vqgan.part`.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    return taming_vqgan.part(m.Inside(PREFIX, arrays), levels)


def table(tokenizer: VQ) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes."""
    return m.inside(PREFIX, taming_vqgan.table(tokenizer))
