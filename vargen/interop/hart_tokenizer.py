"""HART's tokenizer (mit-han-lab/hart-0.7b-1024px, tokenizer/): VAR's names beside ours, in a module of the authors'.

Their file holds the discriminator too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes, var_tokenizer
from vargen.tokenizers.hybrid import HybridMultiScaleVQ

WHAT = "HART tokenizer"
PREFIX = "vae."
IGNORED = ("disc.*",)
WRAPPED = ()
USUAL = 1024  # side in pixels that the published file is of
# Sides of the levels of 256, 512 and 1024 pixels, by the last: a sixteenth of the picture's.
PUBLISHED = {
    16: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    32: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    64: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}


def levels(arrays: Mapping[str, Any], image_size: int = 0) -> tuple[int, ...]:
    """Sides of the levels, coarse to fine, which no array tells.

    Args:
      arrays: the authors', by name.
      image_size: side in pixels; 0: the published file's.

    Raises:
      UserError: a size of which the authors have no levels; arrays that tell sizes are missing.
    """
    first = f"{PREFIX}encoder.down.{{}}.block.0.conv1.weight"
    cell = 2 ** (shapes.count(arrays, first, WHAT) - 1)
    side = (image_size or USUAL) // cell
    if side not in PUBLISHED or image_size % cell:
        sizes = " or ".join(str(cell * n) for n in PUBLISHED)
        raise UserError(f"--image-size: expected {sizes} pixels, found {image_size or USUAL}")
    return PUBLISHED[side]


def part(arrays: Mapping[str, Any], levels: tuple[int, ...] | None = None) -> ConfigDict:
    """The tokenizer's part, see `var_tokenizer.part`; without `levels` those of 1024 pixels.

    Raises:
      UserError: arrays that tell sizes are missing.
    """
    found = var_tokenizer.part(m.Inside(PREFIX, arrays), levels or PUBLISHED[64])
    return config_part(**dict(found, name="hybrid_multiscale"))


def table(tokenizer: HybridMultiScaleVQ) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes."""
    return m.inside(PREFIX, var_tokenizer.table(tokenizer))
