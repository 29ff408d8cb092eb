"""Images and stored codes: sources by index, and the pipeline that makes batches of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vargen import limits, schema
from vargen.data import digits, emoji, folder, shapes, tfds
from vargen.data.pipeline import arrays, batches, evenly, in_batches, padded, to_float
from vargen.data.sources import ArraySource, Source
from vargen.errors import UserError

__all__ = [
    "SOURCES",
    "ArraySource",
    "Source",
    "arrays",
    "batches",
    "evenly",
    "in_batches",
    "load",
    "padded",
    "to_float",
]

SOURCES: dict[str, Callable[[Mapping[str, Any], str], Source]] = dict(
    digits=digits.load, emoji=emoji.load, folder=folder.load, shapes=shapes.load, tfds=tfds.load
)


def load(settings: Mapping[str, Any], split: str = "train") -> Source:
    """The images that `config.data` names.

    Args:
      settings: `config.data`: source, path, dataset, image_size, channels, num_classes; `test_fraction` (0.1)
        where the set has no split of its own.
      split: "train" or "test" (held out).

    Raises:
      UserError: unknown source or split; a set that is missing, empty or broken; labels that don't fit
        `num_classes` (0 takes any number).
    """
    if split not in ("train", "test"):
        raise UserError(f"data split: expected 'train' or 'test', found {split!r}")
    limits.check(limits.fields(schema.Data), settings, "data.")
    name, skipped = settings["source"], settings.get("skip_broken", 0)
    if skipped and name != "folder":
        raise UserError(
            f"data.skip_broken: expected 0 for {name}, which is no folder of files, found {skipped}"
        )
    source = SOURCES[name](settings, split)
    expected = settings.get("num_classes", 0)
    if expected and expected != len(source.classes):
        count = f"{len(source.classes)} as in {source.name}"
        raise UserError(f"data.num_classes: expected {count}, or 0 (any), found {expected}")
    if len(source) == 0:
        raise UserError(f"{source.name}: expected images in its {split} split, found none")
    return source
