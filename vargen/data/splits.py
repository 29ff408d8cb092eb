"""Which folders of a data set are its splits, by their names."""

from __future__ import annotations

from typing import NamedTuple

from vargen import paths, spelling
from vargen.data import listing
from vargen.data.listing import Inside
from vargen.errors import UserError

# In any case. Of several held-out folders the first in this order is taken that has pictures in class folders.
TRAINING = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "eval", "evaluation", "dev")


class Splits(NamedTuple):
    """Where the pictures are.

    Attributes:
      training: the folder of the classes.
      held_out: that of the test split's; None where a share of the training folder's pictures is held out.
    """

    training: Inside
    held_out: Inside | None


def find(root: paths.Path) -> Splits:
    """The splits of a folder; without any, it is itself the folder of the classes.

    `train` or `training` is a split beside one of `HELD_OUT`, or where no other folder has pictures.

    Raises:
      UserError: two folders of training pictures; held-out ones alone; held-out classes that training hasn't.
    """
    inside = listing.look(root)
    training = [p for p in inside.folders if p.name.lower() in TRAINING]
    held_out = [p for p in inside.folders if p.name.lower() in HELD_OUT]
    others = [p for p in inside.folders if p not in training and p not in held_out]
    if not training:
        if held_out and not others:
            if inner := next((p for p in held_out if listing.look(p).folders), None):
                raise UserError(f"folder {root}: expected train/ beside {inner.name}/, found none")
        return Splits(inside, None)
    if not held_out and any(_has_pictures(p) for p in others):
        return Splits(inside, None)
    if len(training) > 1:
        names = " and ".join(p.name for p in training)
        raise UserError(f"folder {root}: expected one folder of training pictures, found {names}")
    classes = listing.look(training[0])
    chosen = _labelled(classes, held_out)
    aside = [p.name for p in (*held_out, *others) if chosen is None or p != chosen.folder]
    if aside:
        kept = f"a share of {training[0].name}" if chosen is None else chosen.folder.name
        what = f"{kept} is held out"
        listing.say_once(
            f"folder {root}: {what}, left aside: {', '.join(aside[:6])}{', ...' if aside[6:] else ''}"
        )
    return Splits(classes, chosen)


def _labelled(training: Inside, held_out: list[paths.Path]) -> Inside | None:
    """The held-out folder with pictures of the training folder's classes, or None; its classes are checked."""
    classes = [p.name for p in training.folders]
    if not classes:
        return None
    foreign: list[tuple[paths.Path, str]] = []
    for folder in sorted(held_out, key=lambda p: HELD_OUT.index(p.name.lower())):
        inside = listing.look(folder)
        filled = [p.name for p in inside.folders if _has_pictures(p)]
        places = spelling.places(filled, classes)
        another = [name for name, place in zip(filled, places, strict=True) if place < 0]
        if len(another) == len(filled):
            foreign += [(folder, name) for name in another[:1]]
            continue
        if another:
            foreign = [(folder, another[0])]
            break
        return inside
    if foreign:
        folder, name = foreign[0]
        raise UserError(
            f"folder {folder}: expected the classes of {training.folder}, found another: {spelling.listed([name], 1)}"
        )
    return None


def _has_pictures(folder: paths.Path) -> bool:
    return next(listing.walk(folder), None) is not None
