"""FlexVAR's tokenizer (jiaosiyu1999/FlexVAR, FlexVAE.pth): LlamaGen's arrays, read at every level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.interop import llamagen_vq
from vargen.interop.flexvar import TRAINED

WHAT = "FlexVAR tokenizer"
IGNORED = llamagen_vq.IGNORED
WRAPPED = llamagen_vq.WRAPPED
table = llamagen_vq.table


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part, with the authors' levels where none are told.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    c = llamagen_vq.part(arrays)
    c.name = "pyramid_vq"
    c.levels = tuple(levels or TRAINED)
    return c
