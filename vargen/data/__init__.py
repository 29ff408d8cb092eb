"""Images and stored codes: sources by index, and the pipeline that makes batches of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from vargen import limits, schema
from vargen.data import digits, emoji, folder, idx, moving_digits, shapes, tfds
from vargen.data.pipeline import arrays, batches, evenly, in_batches, padded, to_float
from vargen.data.sources import SPLITS, ArraySource, Source
from vargen.errors import UserError

__all__ = [
    "SOURCES",
    "ArraySource",
    "Source",
    "Sources",
    "arrays",
    "batches",
    "evenly",
    "in_batches",
    "load",
    "padded",
    "to_float",
]

# What opens the splits of a set, by `config.data`.
SOURCES: dict[str, Callable[[Mapping[str, Any]], Callable[[str], Source]]] = dict(
    digits=lambda settings: functools.partial(digits.load, settings),
    emoji=lambda settings: functools.partial(emoji.load, settings),
    folder=lambda settings: folder.Folder(settings).source,
    idx=lambda settings: functools.partial(idx.load, settings),
    moving_digits=lambda settings: functools.partial(moving_digits.load, settings),
    shapes=lambda settings: functools.partial(shapes.load, settings),
    tfds=lambda settings: functools.partial(tfds.load, settings),
)
PLACED = ("folder", "idx", "tfds")  # those that lie somewhere
OF_CLIPS = ("moving_digits",)


class Sources:
    """The splits of the set that `config.data` names, each opened when it is first asked for, and kept.

    A run hands it on: a folder is listed once, and what comes into it or leaves it is seen by the next run.

    Args:
      settings: `config.data`: source, path, dataset, image_size, frames, channels, num_classes; `test_fraction` (0.1)
        where the set has no split of its own.

    Raises:
      UserError: an unknown source, frames of pictures, or a set that is missing or cannot be listed.
    """

    def __init__(self, settings: Mapping[str, Any]):
        limits.check(limits.fields(schema.Data), settings, "data.")
        name, skipped = settings["source"], settings.get("skip_broken", 0)
        if skipped and name != "folder":
            raise UserError(
                f"data.skip_broken: expected 0 for {name}, which is no folder of files, found {skipped}"
            )
        if settings.get("path") and name not in PLACED:
            raise UserError(
                f"data.path: expected none for {name}, which brings its own pictures, found {settings['path']!r}; "
                "--config.data.source=folder reads those of a folder"
            )
        if (frames := settings.get("frames", 1)) > 1 and name not in OF_CLIPS:
            raise UserError(
                f"data.frames: expected 1 for {name}, which has pictures, found {frames}; clips are in "
                f"{', '.join(OF_CLIPS)}"
            )
        settings = dict(settings)  # as they are now
        self._expected = settings.get("num_classes", 0)
        self._open = SOURCES[name](settings)
        self._opened: dict[str, Source] = {}

    def __getitem__(self, split: str) -> Source:
        """The images of "train" or "test" (held out).

        Raises:
          UserError: an unknown split; a set that is empty or broken; labels that don't fit `num_classes` (0 takes
            any number).
        """
        if split not in SPLITS:
            raise UserError(f"data split: expected {' or '.join(map(repr, SPLITS))}, found {split!r}")
        if split not in self._opened:
            source = self._open(split)
            if self._expected and self._expected != len(source.classes):
                count = f"{len(source.classes)} as in {source.name}"
                raise UserError(f"data.num_classes: expected {count}, or 0 (any), found {self._expected}")
            if len(source) == 0:
                raise UserError(f"{source.name}: expected images in its {split} split, found none")
            self._opened[split] = source
        return self._opened[split]


def load(settings: Mapping[str, Any], split: str = "train") -> Source:
    """One split of a set, "train" or "test" (held out); arguments and errors of `Sources`."""
    return Sources(settings)[split]
