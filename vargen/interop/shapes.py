"""Sizes of a model, read off the arrays that its authors published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vargen.errors import UserError


def shape(arrays: Mapping[str, Any], name: str, what: str = "checkpoint") -> tuple[int, ...]:
    """The shape of an array, which is not converted for it where the mapping knows shapes.

    Raises:
      UserError: there is no such array.
    """
    if name not in arrays:
        first = ", ".join(list(arrays)[:3])
        raise UserError(f"{what}: expected the array {name}, found {len(arrays)} others ({first} ...)")
    known = getattr(arrays, "shape", None)
    return _Shape(known(name) if known else np.shape(arrays[name]), name, what)


def pair(arrays: Mapping[str, Any], name: str, what: str = "checkpoint") -> tuple[int, int]:
    """The shape of an array of two axes.

    Raises:
      UserError: there is no such array, or it has others.
    """
    found = shape(arrays, name, what)
    if len(found) != 2:
        raise UserError(f"{what}: {name}: expected an array of two axes, found shape {tuple(found)}")
    return found[0], found[1]


class _Shape(tuple):
    """A shape that names its array where it has fewer axes than are asked for."""

    name: str
    what: str

    def __new__(cls, values: Iterable[int], name: str, what: str):
        made = super().__new__(cls, values)
        made.name, made.what = name, what
        return made

    def __getitem__(self, axis):
        if isinstance(axis, int) and not -len(self) <= axis < len(self):
            raise UserError(f"{self.what}: {self.name}: expected more axes, found shape {tuple(self)}")
        return super().__getitem__(axis)


def heads(width: int, given: int, usual: int, what: str) -> int:
    """Attention heads of a model: as `given`, or the authors' rule's, `usual`, where 0.

    Raises:
      UserError: a number that doesn't divide the width.
    """
    found = given or usual
    if not found or width % found:
        raise UserError(f"{what}: expected a number of heads that divides the width {width}, found {found}")
    return found


def usual_heads(width: int, each: int = 64) -> int:
    """Attention heads of so many channels each, as most authors have them; a narrower model has one."""
    return width // each or 1


def told_heads(given: int, told: int) -> int:
    """Attention heads of a model whose arrays tell them.

    Raises:
      UserError: others are `given` (0: none).
    """
    if given not in (0, told):
        raise UserError(f"--heads: expected {told} as the arrays tell, found {given}")
    return told


def from_latents(arrays: Mapping[str, Any], name: str, channels: int, what: str) -> int:
    """D of the map [D, C] by which latents enter, each slot's by itself.

    Raises:
      UserError: other than the tokenizer's `channels`, as where several latents enter together.
    """
    width, found = pair(arrays, name, what)
    if found != channels:
        raise UserError(f"{what}: expected slots of the tokenizer's {channels} channels, found {found}")
    return width


def count(arrays: Mapping[str, Any], pattern: str, what: str = "") -> int:
    """How many of pattern.format(0), pattern.format(1), ... there are, without a gap.

    Raises:
      UserError: none, where `what` names whose first is expected.
    """
    if what:
        shape(arrays, pattern.format(0), what)
    n = 0
    while pattern.format(n) in arrays:
        n += 1
    return n
