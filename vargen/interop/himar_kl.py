"""Hi-MAR's tokenizer: MAR's autoencoder (kl16.ckpt), of the picture and of the picture at half its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.interop import mar_kl

WHAT = "Hi-MAR tokenizer"
IGNORED = mar_kl.IGNORED
WRAPPED = mar_kl.WRAPPED
LEVELS = (8, 16)  # the authors'
table = mar_kl.table


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part, with the authors' levels where none are told.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    c = mar_kl.part(arrays)
    c.name = "pyramid_kl"
    c.levels, c.of = tuple(levels or LEVELS), "pictures"
    return c
