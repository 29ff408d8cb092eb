"""FlowAR's tokenizer: MAR's autoencoder (kl16.ckpt), whose latents are averaged to every scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.interop import mar_kl

WHAT = "FlowAR tokenizer"
IGNORED = mar_kl.IGNORED
WRAPPED = mar_kl.WRAPPED
LEVELS = (1, 2, 4, 8, 16)  # the authors'
table = mar_kl.table


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part, with the authors' levels where none are told.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    c = mar_kl.part(arrays)
    c.name = "pyramid_kl"
    c.levels = tuple(levels or LEVELS)
    return c
