"""DnD-Transformer's tokenizers: RQ-VAEs, whose nearest codes the generator learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.interop import rqvae

WHAT, IGNORED, WRAPPED = rqvae.WHAT, rqvae.IGNORED, rqvae.WRAPPED
table = rqvae.table


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    found = rqvae.part(arrays, levels)
    del found["temperature"]
    return found
