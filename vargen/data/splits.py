"""Which folders of a data set are its splits, by their names."""

from __future__ import annotations

import collections
import itertools
import os
import re
import shlex
from collections.abc import Iterable
from typing import NamedTuple

from vargen import paths, spelling
from vargen.data import listing
from vargen.data.listing import Inside
from vargen.errors import UserError

# In any case. Of several held-out folders the first in this order is taken that has pictures as training has them.
TRAINING = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "eval", "evaluation", "dev")
# What names of splits hold beside such a word and say nothing: train_set, TestImages, val2017.
_FILLER = "(?:data)?sets?|data|images?|imgs?|pictures?|photos?|splits?|folder|dir|files"
_WORD = re.compile(f"({'|'.join(TRAINING + HELD_OUT)})(?:{_FILLER})?")


class Splits(NamedTuple):
    """Where the pictures are.

    Attributes:
      training: the folder of the classes; or of loose pictures alone, which are one class.
      held_out: that of the test split's; None where a share of the training folder's pictures is held out.
      loose: how many pictures lie beside the folders of the splits.
    """

    training: Inside
    held_out: Inside | None
    loose: int = 0


def find(root: paths.Path) -> Splits:
    """The splits of a folder; without any, it is itself the folder of the classes.

    `train` or `training` is a split beside one of `HELD_OUT`, or where no other folder has pictures. To one with class
    folders belongs a held-out one with class folders, to one of loose pictures one of loose pictures.

    Raises:
      UserError: two folders of training pictures, or two held-out ones of a name but for its case; held-out ones
        alone; held-out classes that training hasn't; folders that may be splits and may be classes.
    """
    inside = listing.look(root)
    training = [p for p in inside.folders if p.name.lower() in TRAINING]
    held_out = [p for p in inside.folders if p.name.lower() in HELD_OUT]
    others = [p for p in inside.folders if p not in training and p not in held_out]
    if not (training and held_out):
        _check_names(root, training, held_out, others)
    if not training:
        return Splits(inside, None)
    if not held_out and (beside := _first_with_pictures(others)):
        if split := next((p for p in training if _in_class_folders(listing.look(p))), None):
            raise UserError(
                f"folder {root}: expected test/ or val/ beside {split.name}/, which has class folders, found "
                f"{beside.name}/: rename it or move it away; or rename {split.name}/, if it is a class"
            )
        return Splits(inside, None)
    for kind, found in (("training", training), ("held-out", _alike(held_out))):
        if len(found) > 1:
            names = " and ".join(p.name for p in found)
            raise UserError(f"folder {root}: expected one folder of {kind} pictures, found {names}")
    classes = listing.look(training[0])
    if is_flat(classes):
        chosen = _flat(root, classes, held_out, others)
    else:
        chosen = _labelled(classes, held_out)
    aside = [p.name for p in (*held_out, *others) if chosen is None or p != chosen.folder]
    if loose := inside.loose:
        aside.insert(0, f"{loose} in no folder")
    if aside:
        kept = f"a share of {training[0].name}" if chosen is None else chosen.folder.name
        what = f"{kept} is held out"
        listing.say_once(
            f"folder {root}: {what}, left aside: {', '.join(aside[:6])}{', ...' if aside[6:] else ''}"
        )
    return Splits(classes, chosen, loose)


def is_flat(folder: Inside) -> bool:
    """Whether there are pictures in it and no folders."""
    return bool(folder.loose) and not folder.folders


def check_nested(folder: paths.Path, classes: list[str], files: Iterable[paths.Path]) -> None:
    """Raises UserError where there are splits inside of classes.

    Args:
      folder: the folder of the classes.
      classes: their names.
      files: the pictures in them.
    """
    start = len(os.fspath(folder / "x")) - 1
    below: dict[str, set[str]] = collections.defaultdict(set)  # the folders in each that have pictures
    for here in {os.path.dirname(os.fspath(file)[start:]) for file in files}:
        while here not in below[above := os.path.dirname(here)]:
            below[above].add(here)
            here = above
    # Where there is but one class, the folder that is meant lies deeper; among several one may hold trains.
    found = [
        above
        for above, inner in below.items()
        if _pair(map(os.path.basename, inner))
        or (
            len(classes) == 1
            and any(_role(os.path.basename(p)) == (True, ()) and below.get(p) for p in inner)
        )
    ]
    if not found:
        return
    found = sorted(found, key=listing.natural)
    where = ", ".join(f"{name}/" if name else "it" for name in found[:3]) + (", ..." if found[3:] else "")
    expected = f"--config.data.path={shlex.quote(os.fspath(folder / found[0]))}"
    if found[0] and len(classes) > 1:
        expected = f"train/ and test/ outside the classes, or {expected}"
    raise UserError(f"folder {folder}: found splits in {where}; expected {expected}")


def _check_names(
    root: paths.Path, training: list[paths.Path], held_out: list[paths.Path], others: list[paths.Path]
) -> None:
    """Raises UserError where train/ or test/ is missing, but another folder seems to be it."""
    named = {p.name: p for p in (*training, *held_out, *others) if _role(p.name)}
    if _pair(named) and (pair := _pair(name for name, p in named.items() if _has_pictures(p))):
        raise UserError(
            f"folder {root}: expected train/ beside test/, found {pair[0]}/ and {pair[1]}/: rename them"
        )
    for p in others:
        if _role(p.name) == (True, ()) and _in_class_folders(listing.look(p)):
            raise UserError(f"folder {root}: expected train/, found class folders in {p.name}/: rename it")
    if training or not held_out:
        return
    if not others:
        if inner := _first_with_pictures(held_out):
            raise UserError(f"folder {root}: expected train/ beside {inner.name}/, found none")
        return
    for inner in held_out:
        classes = {p.name for p in listing.look(inner).folders}
        for p in others if classes else ():
            if classes & {q.name for q in listing.look(p).folders}:
                raise UserError(
                    f"folder {root}: expected train/ beside {inner.name}/, found the same class folders in {p.name}/: "
                    "rename it"
                )


def _role(name: str) -> tuple[bool, tuple[str, ...]] | None:
    """Whether a name is of training pictures or else of held-out ones, and what else it says; None: of no split.

    "TrainSet": (True, ()), "val2017": (False, ()), "dog_test": (False, ("dog",)).
    """
    words = re.findall(r"[^\W\d_]+", re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower())
    splits = [found[1] for word in words if (found := _WORD.fullmatch(word))]
    if not splits:
        return None
    rest = (word for word in words if not _WORD.fullmatch(word) and not re.fullmatch(_FILLER, word))
    return any(word in TRAINING for word in splits), tuple(rest)


def _pair(names: Iterable[str]) -> tuple[str, str] | None:
    """A name of training pictures and one of held-out ones that differ in nothing else, or None."""
    of: dict[tuple[bool, tuple[str, ...]], str] = {}
    for name in names:
        if role := _role(name):
            of.setdefault(role, name)
    pairs = ((name, of.get((False, rest))) for (training, rest), name in of.items() if training)
    return next(((one, other) for one, other in pairs if other is not None), None)


def _alike(held_out: list[paths.Path]) -> list[paths.Path]:
    """The first that have the same name but for its case."""
    groups = itertools.groupby(sorted(held_out, key=_rank), key=_rank)
    return next((found for _, same in groups if len(found := list(same)) > 1), [])


def _rank(held_out: paths.Path) -> int:
    return HELD_OUT.index(held_out.name.lower())


def _flat(
    root: paths.Path, training: Inside, held_out: list[paths.Path], others: list[paths.Path]
) -> Inside | None:
    """The held-out folder of loose pictures, where those of training are loose too, or None."""
    with_pictures = sorted(filter(_has_pictures, held_out), key=_rank)
    if not with_pictures:
        return None
    if beside := _first_with_pictures(others):
        raise UserError(
            f"folder {root}: expected class folders in {training.folder.name}/ and {with_pictures[0].name}/, or those "
            f"two alone, found {beside.name}/ too: move it away, or rename them where they are classes"
        )
    chosen = next((inside for p in with_pictures if is_flat(inside := listing.look(p))), None)
    if chosen is None:
        raise UserError(
            f"folder {training.folder}: expected subfolders of images, one per class, as in {with_pictures[0].name}/, "
            f"found none, and {training.passed_over}"
        )
    return chosen


def _labelled(training: Inside, held_out: list[paths.Path]) -> Inside | None:
    """The held-out folder with pictures of the training folder's classes, or None; its classes are checked."""
    classes = [p.name for p in training.folders]
    if not classes:
        return None
    foreign: list[tuple[paths.Path, str]] = []
    for folder in sorted(held_out, key=_rank):
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


def _in_class_folders(inside: Inside) -> bool:
    """Whether more pictures lie in its folders than beside them."""
    found = itertools.chain.from_iterable(map(listing.walk, inside.folders))
    return sum(1 for _ in itertools.islice(found, inside.loose + 1)) > inside.loose


def _first_with_pictures(folders: list[paths.Path]) -> paths.Path | None:
    return next(filter(_has_pictures, folders), None)


def _has_pictures(folder: paths.Path) -> bool:
    return next(listing.walk(folder), None) is not None
