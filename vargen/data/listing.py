"""What lies in a folder of pictures: its files in natural order, and by kind what is no picture."""

from __future__ import annotations

import collections
import functools
import os
import re
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from vargen import paths, spelling
from vargen.data.image_file import reason
from vargen.errors import UserError, escaped

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# What systems and their storage leave beside pictures, in any case; and whatever begins with ".".
NO_PICTURES = (
    "__macosx",
    "network trash folder",
    "temporary items",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "@eadir",  # Synology
    "#recycle",
    "#snapshot",
    "@tmp",
    "@__thumb",  # QNAP
    "@recycle",
    "@recently-snapshot",
    "~snapshot",  # NetApp
)
FOLDER, FILE, NEITHER = "folder", "file", "no plain file"
HIDDEN, UPWARDS, TWICE, LOOSE = "hidden", "linked upwards", "linked twice", "outside the class folders"
KINDS_SAID = 6


class PassedOver:
    """What lies in a folder and isn't read, counted by kind."""

    def __init__(self) -> None:
        self.kinds: collections.Counter[str] = collections.Counter()
        self.example = ""  # of what is no plain file

    def add(self, item: paths.Path, kind: str = "") -> None:
        """Counts an item; a file by its suffix where no kind is given."""
        if not kind:
            suffix = item.suffix.lower()
            kind = suffix if suffix.isprintable() and 1 < len(suffix) < 12 else "of no known kind"
        elif kind == NEITHER:
            self.example = self.example or os.fspath(item)
        self.kinds[kind] += 1

    def update(self, other: PassedOver) -> None:
        """Adds what another has counted."""
        self.kinds += other.kinds
        self.example = self.example or other.example

    def __str__(self) -> str:
        """ "10 .txt, 2 hidden, 1 no plain file ('a/pipe')", or "none"."""
        ordered = sorted(self.kinds.items(), key=lambda kind: (-kind[1], kind[0]))
        said = [f"{count} {kind}" for kind, count in ordered[:KINDS_SAID]]
        if rest := sum(count for _, count in ordered[KINDS_SAID:]):
            said.append(f"{rest} of other kinds")
        text = ", ".join(said) or "none"
        return text.replace(NEITHER, f"{NEITHER} ({self.example!r})")

    def say(self, folder: paths.Path) -> None:
        """Prints a line about what there is, once, however often the folder is read."""
        if self.kinds:
            say_once(f"folder {folder}: {sum(self.kinds.values())} passed over: {self}")


@functools.cache
def say_once(line: str) -> None:
    """Prints a line unless it was printed before."""
    print(escaped(line), flush=True)


def natural(name: str) -> tuple[Any, ...]:
    """A key that sorts names as people do: 2 before 10, capitals beside small letters; equal ones by themselves."""
    name = paths.text(name)  # the same in every locale
    parts = re.split("([0-9]+)", spelling.folded(name))
    return (*(int(part) if i % 2 else part for i, part in enumerate(parts)),), name


def listed(folder: paths.Path) -> list[paths.Path]:
    """What is in a folder, in natural order.

    Raises:
      UserError: it cannot be read.
    """
    return sorted(_items(folder), key=lambda p: natural(p.name))


def _items(folder: paths.Path) -> list[paths.Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"folder {folder}: expected one that can be read, found: {reason(error)}") from error


def _kind(item: paths.Path, text: str) -> str:
    """FOLDER, FILE (a plain one), or NEITHER: a pipe, a device, a dead link. Links are followed.

    `text` is the same path, which takes long to ask of one, and there may be a million.
    """
    if text.startswith(paths.REMOTE):
        return FOLDER if item.is_dir() else FILE if item.is_file() else NEITHER
    try:
        mode = os.stat(text).st_mode
    except OSError:
        return NEITHER
    return FOLDER if stat.S_ISDIR(mode) else FILE if stat.S_ISREG(mode) else NEITHER


def ignored(name: str) -> bool:
    """Whether it is hidden, or what another program left."""
    return name.startswith(".") or name.lower() in NO_PICTURES


class Inside(NamedTuple):
    """What lies in a folder.

    Attributes:
      folder: the folder itself.
      folders: those in it that may hold pictures, in natural order; none that leads back to it or above it.
      passed_over: all else.
    """

    folder: paths.Path
    folders: list[paths.Path]
    passed_over: PassedOver

    @property
    def loose(self) -> int:
        """How many pictures lie in it beside the folders."""
        return self.passed_over.kinds[LOOSE]


def look(folder: paths.Path) -> Inside:
    """Lists a folder, and nothing below it.

    Raises:
      UserError: it cannot be read.
    """
    above, found, passed_over = _above(folder), [], PassedOver()
    for item in listed(folder):
        if ignored(item.name):
            passed_over.add(item, HIDDEN)
        elif (kind := _kind(item, os.fspath(item))) != FOLDER:
            loose = LOOSE if item.suffix.lower() in SUFFIXES else ""
            passed_over.add(item, kind if kind == NEITHER else loose)
        elif _identity(item) in above:
            passed_over.add(item, UPWARDS)
        else:
            found.append(item)
    return Inside(folder, found, passed_over)


def walk(folder: paths.Path, passed_over: PassedOver | None = None) -> Iterator[tuple[str, paths.Path]]:
    """The picture files below a folder, each with its name below it, in no order.

    Links are followed, into no folder twice and never upwards; folders come before links to them.

    Args:
      folder: where to look.
      passed_over: what is no picture is added to it.

    Raises:
      UserError: a folder that cannot be read.
    """
    passed_over = PassedOver() if passed_over is None else passed_over
    above = _above(folder) - {_identity(folder)}
    seen: set[Any] = set()
    waiting, links = [("", folder)], list[tuple[str, paths.Path]]()
    while waiting or links:
        below, here = waiting.pop() if waiting else links.pop(0)
        if (identity := _identity(here)) in seen or identity in above:
            passed_over.add(here, TWICE if identity in seen else UPWARDS)
            continue
        seen.add(identity)
        folders, text = [], os.fspath(here)
        for item in _items(here):
            name = item.name
            if ignored(name):
                passed_over.add(item, HIDDEN)
                continue
            kind = _kind(item, f"{text}/{name}")
            if kind == FOLDER:
                folders.append((f"{below}{name}/", item))
            elif kind == FILE and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield below + name, item
            else:
                passed_over.add(item, kind if kind == NEITHER else "")
        for found in sorted(folders, key=lambda f: natural(f[0])):
            (links if _is_link(found[1]) else waiting).append(found)


def pictures_in(folder: paths.Path, passed_over: PassedOver | None = None) -> list[paths.Path]:
    """The picture files below a folder, in natural order; see `walk`."""
    return [item for _, item in sorted(walk(folder, passed_over), key=lambda found: natural(found[0]))]


def no_pictures(folder: paths.Path, passed_over: PassedOver) -> UserError:
    """The error for a folder without pictures."""
    return UserError(f"folder {folder}: expected images ({', '.join(SUFFIXES)}), found {passed_over}")


def _is_link(item: paths.Path) -> bool:
    return not paths.is_remote(item) and os.path.islink(item)


def _identity(folder: paths.Path) -> Any:
    """What tells a folder from others, whatever links lead to it."""
    if paths.is_remote(folder):
        return os.fspath(folder)
    try:
        found = os.stat(folder)
    except OSError as error:
        raise UserError(f"folder {folder}: expected one that can be read, found: {reason(error)}") from error
    return found.st_dev, found.st_ino


def _above(folder: paths.Path) -> set[Any]:
    """The folder and those above it, by its name and where it really lies."""
    if paths.is_remote(folder):
        return set()
    ways = [paths.Path(way) for way in (os.path.abspath(folder), os.path.realpath(folder))]
    return {_identity(p) for way in ways for p in (way, *way.parents)}
