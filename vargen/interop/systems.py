"""The published systems that can be carried over, and their configs as their arrays tell them."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from vargen import config, fine_tuning, models
from vargen.errors import UserError
from vargen.interop import mapping, shapes
from vargen.interop.names import SYSTEMS

# Orders to which the authors' networks are bound. Others are drawn anew in every call, and any will do.
FIXED = ("raster", "levels", "cells")


@dataclasses.dataclass(frozen=True)
class System:
    """A published system.

    Attributes:
      generator: module with `WHAT`, `IGNORED`, `WRAPPED`, `levels(arrays)`, `fill(config, arrays, heads)`,
        `table(generator)`, and where arrays don't tell it `image_size(arrays)`; where heads and the norms' epsilon
        stand in a file beside them, its name `TOLD` and `told(config)`; None where a tokenizer is published alone.
      tokenizer: module with `WHAT`, `IGNORED`, `WRAPPED`, `part(arrays, levels)` and `table(tokenizer)`; of tokenizers
        alone, where sizes are usually others than 256 pixels, `image_size(arrays)`, where levels depend on them
        `levels(arrays, image_size)`, and where a file beside them says what arrays don't, its name `TOLD` and
        `tell(part, config)`, which writes that into the part, and `said(tokenizer)`, what it says of a tokenizer; of
        those within an autoencoder that is a file of its own, what the names of its arrays then begin with, `OUTER`.
    """

    generator: Any
    tokenizer: Any

    @property
    def told(self) -> str:
        """The name of the file beside the one of `told_of` that tells what arrays don't; '' where there is none."""
        return getattr(self.generator or self.tokenizer, "TOLD", "")

    @property
    def told_of(self) -> str:
        """Of which part that is: "generator", or "tokenizer" where there is no generator."""
        return "generator" if self.generator else "tokenizer"

    @property
    def outer(self) -> str:
        """What names begin with of the autoencoder around the tokenizer, a file of its own; '' where there is none."""
        return getattr(self.tokenizer, "OUTER", "")

    def like(self, part: str, own: ConfigDict, built: Any, arrays: Mapping[str, Any]) -> Any:
        """The tokenizer or generator (`part`) that arrays are of in the authors' program.

        Args:
          part: "tokenizer" or "generator".
          own: the config of the model whose arrays they are.
          built: its tokenizer or generator, which tells what the arrays don't: the image's size, heads.
          arrays: by the authors' names.

        Raises:
          UserError: the authors' parts can't be built over slots such as these.
        """
        tokenizer = built if part == "tokenizer" else built.tokenizer
        c = config.config()
        c.data = config.imagenet(tokenizer.image_size[0])
        if part == "tokenizer":
            sides = tuple(h for h, _ in tokenizer.grid.levels) if len(tokenizer.grid.levels) > 1 else None
            c.tokenizer = self.tokenizer.part(arrays, sides)
            if self.told and self.generator is None:
                self.tokenizer.tell(c.tokenizer, self.tokenizer.said(built))
            return models.build_tokenizer(c)
        c.tokenizer = ConfigDict(dict(channels=tokenizer.channels, vocab=tokenizer.vocab))
        self.generator.fill(c, arrays, built.stages[0].block.mixer.heads)
        if c.order.name not in FIXED:
            c.order = own.order
        if self.told and self.generator:
            c.model.eps = own.model.eps
        return models.build_generator(c, tokenizer)


def system(name: str) -> System:
    """A system by its name.

    Raises:
      UserError: an unknown name.
    """
    if name not in SYSTEMS:
        raise UserError(f"system: expected one of {', '.join(SYSTEMS)}, found {name!r}")
    found = (module and importlib.import_module(f"vargen.interop.{module}") for module in SYSTEMS[name])
    return System(*(module or None for module in found))


def check_parts(name: str, flags: Iterable[str]) -> None:
    """Checks that a system has the parts of which files are named.

    Args:
      name: of the system.
      flags: "tokenizer", "generator", "outer": what there are files for.

    Raises:
      UserError: a generator's file, of a system that has none; or one of an autoencoder that isn't needed.
    """
    given, s = set(flags), system(name)
    if "generator" in given and s.generator is None:
        raise UserError(f"--generator: expected none, as {name} is a tokenizer alone, found a file")
    if "outer" in given and not s.outer:
        raise UserError(f"--outer: expected none, as {name}'s tokenizer is of pixels, found a file")


def infer(
    s: System,
    tokenizer: Mapping[str, Any],
    generator: Mapping[str, Any] | None = None,
    *,
    image_size: int = 0,
    heads: int = 0,
    beside: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """The config of published arrays.

    Args:
      s: the system.
      tokenizer, generator: the authors' arrays by name; without a generator the config describes none.
      image_size: side in pixels, where the arrays don't tell; 0: that of most published files of the kind.
      heads: of attention, where the arrays don't tell and the authors' rule isn't followed.
      beside: what the file beside the generator's, or the tokenizer's alone, says, of systems that have one; None:
        their usual.

    Raises:
      UserError: arrays that tell sizes are missing, or sizes contradict each other.
    """
    c = config.config()
    sides = s.generator.levels(generator) if generator is not None else None
    if s.generator is None and hasattr(s.tokenizer, "levels"):
        sides = s.tokenizer.levels(tokenizer, image_size)
    c.tokenizer = s.tokenizer.part(tokenizer, sides)
    if s.generator is None and beside is not None:
        s.tokenizer.tell(c.tokenizer, beside)
    told = 0
    if sides:
        told = sides[-1] * 2 ** (len(c.tokenizer.encoder.get("multipliers", (1, 1, 2, 2, 4))) - 1)
    if told and image_size not in (0, told):
        raise UserError(f"image size: expected {told} as the generator's arrays tell, found {image_size}")
    usual = 256
    if generator is not None and hasattr(s.generator, "image_size"):
        usual = s.generator.image_size(generator)
    elif s.generator is None and hasattr(s.tokenizer, "image_size"):
        usual = s.tokenizer.image_size(tokenizer)
    c.data = config.imagenet(told or image_size or usual)
    if generator is not None and beside is not None:
        known, eps = s.generator.told(beside)
        s.generator.fill(c, generator, shapes.told_heads(heads, known))
        c.model.eps = eps
    elif generator is not None:
        s.generator.fill(c, generator, heads)
    return fine_tuning.begun(c)


def read(module: Any, part: Any, arrays: Mapping[str, Any]) -> dict:
    """Parameters of a tokenizer or a generator (`part`) from the authors' arrays.

    Raises:
      UserError: arrays are missing, left over or of the wrong shape.
    """
    like = jax.eval_shape(part.init, jax.random.key(0))
    return mapping.read(module.table(part), arrays, like, ignore=module.IGNORED, what=module.WHAT)


def build(c: ConfigDict) -> tuple[Any, Any]:
    """The tokenizer and the generator (or None) of a config."""
    tokenizer = models.build_tokenizer(c)
    return tokenizer, models.build_generator(c, tokenizer) if "feed" in c else None
