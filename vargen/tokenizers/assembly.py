"""What tokenizers are assembled from: an encoder by its name, a grid of levels."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from vargen import parts
from vargen.errors import UserError
from vargen.limits import divisors
from vargen.slots import Grid
from vargen.tokenizers import (
    across,
    adaptive,
    conv,
    depths,
    patch,
    pixel_cnn,
    pooled,
    registers,
    vit,
    wavelets,
)

ENCODERS = dict(
    across=across.build,
    adaptive=adaptive.build,
    conv=conv.build,
    depths=depths.build,
    patch=patch.build,
    pixel_cnn=pixel_cnn.build,
    pooled=pooled.build,
    registers=registers.build,
    vit=vit.build,
    wavelets=wavelets.build,
)
CLIPS = ("registers", "vit")  # those that take clips too
CONV = types.MappingProxyType(dict(name="conv"))  # the encoder where a config names none


def codec(encoder, image_size, image_channels, channels, moments, dtype):
    """The encoder and decoder that the part `encoder` names.

    Raises:
      UserError: no such part, or one of pictures alone for clips.
    """
    if len(image_size) > 2 and (name := encoder.get("name")) in ENCODERS and name not in CLIPS:
        raise UserError(
            f"config field tokenizer.encoder: expected {' or '.join(CLIPS)} for clips, found {name}"
        )
    return parts.build(
        ENCODERS,
        encoder,
        "tokenizer.encoder",
        image_size=image_size,
        image_channels=image_channels,
        latent_channels=channels,
        moments=moments,
        dtype=dtype,
    )


def made(kind: type, options: Mapping[str, Any], **own: Any) -> Any:
    """A tokenizer of the options of its part that are its attributes too, and of its own."""
    named = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: x for name, x in options.items() if name in named} | own)


def channels_of_a_group(channels: int, groups: int) -> int:
    """How many of a latent's channels each of its codes has.

    Raises:
      UserError: they don't divide.
    """
    if channels % groups:
        raise UserError(
            f"config field tokenizer.groups: expected a divisor of {channels} channels, found {groups}; for instance "
            f"{divisors(channels, groups)}"
        )
    return channels // groups


def levels_that_stay(sizes: tuple, first: int) -> None:
    """Raises UserError where there are fewer levels than at least stay in training (`level_dropout_from`)."""
    if first > len(sizes) > 0:
        raise UserError(
            f"config field tokenizer.level_dropout_from: expected at most {len(sizes)} levels, found {first}"
        )


def levels(
    sizes: tuple, last: tuple[int, int], encoder: Mapping[str, Any], image_size: tuple[int, int]
) -> Grid:
    """The grid of sides or pairs that a config names, which must end with the encoder's."""
    pairs = tuple((x, x) if isinstance(x, int) else tuple(x) for x in sizes)
    grid = "x".join(map(str, last))
    if not pairs or pairs[-1] != last:
        found = "x".join(map(str, pairs[-1])) if pairs else "none"
        raise UserError(
            f"config field tokenizer.levels: expected the last to be the latent grid {grid}, found {found}; for "
            f"instance {_levels_for(last)}{_patch_for(encoder, pairs, image_size)}"
        )
    for height, width in pairs:
        if not (1 <= height <= last[0] and 1 <= width <= last[1]):
            raise UserError(
                f"config field tokenizer.levels: expected levels from 1x1 to {grid}, found {height}x{width}"
            )
    return Grid(pairs)


def _levels_for(grid: tuple[int, int]) -> str:
    """Levels that end with a grid, each about a quarter longer than the one before, as VAR's."""
    side = max(grid)
    sides = [1]
    while (longer := max(sides[-1] + 1, round(sides[-1] * 1.26))) < side:
        sides.append(longer)
    if grid[0] == grid[1]:
        return str((*sides[: side > 1 and len(sides)], side)).replace(" ", "")
    pairs = [tuple(max(1, round(s * x / side)) for x in grid) for s in sides]
    return str((*pairs, grid)).replace(" ", "")


def _patch_for(encoder: Mapping[str, Any], pairs: tuple, image_size: tuple[int, int]) -> str:
    """' or tokenizer.encoder.patch=8' where a patch would make the grid that the levels end with."""
    if encoder.get("name") != "patch" or not pairs:
        return ""
    sides = [divmod(size, last) if last > 0 else (0, 1) for size, last in zip(image_size, pairs[-1])]
    if any(rest for _, rest in sides) or sides[0] != sides[1]:
        return ""
    return f", or tokenizer.encoder.patch={sides[0][0]}"
