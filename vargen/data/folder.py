"""Images in a folder with one subfolder per class."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vargen import paths, progress
from vargen.data import duplicates, image_file, kept, splits
from vargen.data.image_file import BrokenImage
from vargen.data.kept import KEPT
from vargen.data.listing import LOOSE, PassedOver, no_pictures, pictures_in, say_once, subfolders
from vargen.data.sources import Source, digest, held_out
from vargen.errors import UserError, escaped


class FolderSource(Source):
    """Files read when they are asked for, at their own size or one that is large enough."""

    def __init__(
        self,
        name: str,
        root: paths.Path,
        classes: Sequence[str],
        files: Sequence[paths.Path],
        labels: Sequence[int],
        image_size: int,
        channels: int,
        broken: Broken | None = None,
    ):
        super().__init__(name, classes, image_size, channels)
        self.root = root
        self.files = list(files)
        self.labels = np.asarray(labels, dtype=np.int32)
        self.broken = Broken(0) if broken is None else broken

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A picture; where it is broken, and may be skipped, the next whole one of its class, whoever asks and when."""
        label = int(self.labels[index])
        for place in self._places(index):
            try:
                return dict(image=self._pixels(place), label=label)
            except BrokenImage as error:
                self.broken.skip(self.files[place], error)
        raise UserError(f"{self.name}: expected a whole image of class {self.classes[label]!r}, found none")

    def _places(self, index: int) -> Iterator[int]:
        """An index, then those of the other pictures of its class, round from there."""
        yield index
        same = np.flatnonzero(self.labels == self.labels[index])
        at = int(np.searchsorted(same, index))
        yield from np.roll(same, -at)[1:].tolist()

    def _pixels(self, index: int) -> np.ndarray:
        return KEPT.read(self.files[index], self.channels, self.image_size)

    def read(self, index: int) -> None:
        """See `Source.read`."""
        self._pixels(index)

    def fingerprint(self) -> str:
        """A hash of the files' names below the root, their sizes and times, labels, names of classes, and the reader.

        Raises:
          UserError: a file that is gone.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        listed = [(_below(file, self.root), *_size_and_time(file)) for file in self.files]
        return digest(image_file.VERSION, self.classes, self.labels.tobytes(), listed)


class Broken:
    """The broken files of a data set that are skipped, counted over all its splits; each is said once.

    Args:
      most: how many there may be.
    """

    def __init__(self, most: int):
        self.most = most
        self.files: dict[paths.Path, tuple[int, int] | None] = {}
        self._lock = threading.Lock()

    def skip(self, file: paths.Path, error: BrokenImage) -> None:
        """Counts a file.

        Raises:
          BrokenImage: `error`, where none may be skipped.
          UserError: it is one too many.
        """
        if not self.most:
            raise error
        with self._lock:
            if file in self.files:
                return
            # One that was mended or deleted meanwhile, as in a notebook, counts no more.
            self.files = {f: was for f, was in self.files.items() if kept.stamp(f) == was}
            if len(self.files) == self.most:
                raise UserError(
                    f"{error}; data.skip_broken: expected at most {self.most} such files, found more"
                )
            self.files[file] = kept.stamp(file)
            progress.say(escaped(f"{error}: skipped, {len(self.files)} of at most {self.most}"))


@functools.cache
def _broken(root: str, most: int) -> Broken:
    """That of all sources of a folder in this process."""
    return Broken(most)


def _size_and_time(file: paths.Path) -> tuple[int, int]:
    try:
        return paths.size_and_time(file)
    except OSError as error:
        raise UserError(f"image {file}: expected a file, found none ({image_file.reason(error)})") from error


def _text(name: str, path: paths.Path) -> str:
    return name if paths.is_remote(path) else paths.text(name)


def _below(file: paths.Path, root: paths.Path) -> str:
    return _text(file.relative_to(root).as_posix(), file)


def load(settings: Mapping[str, Any], split: str) -> FolderSource:
    """A folder `class/name.png` (or another of `listing.SUFFIXES`), classes and files in natural order.

    Pictures in no class folder, where there is none, are one class of the folder's name.

    Where it has folders of its own for the splits (`splits.find`), those are taken; else files are held out by the
    hash of their name (`test_fraction`, 0.1 by default), files of the same bytes together. In a bucket, where files
    would have to be fetched for it, their bytes are not compared.

    Raises:
      UserError: no such folder, one that cannot be read, no class in it, a class without pictures in the training
        split, or classes that only the held-out split has.
    """
    if not settings["path"]:
        raise UserError("data.path: expected a folder with one subfolder of images per class, found nothing")
    given = paths.path(settings["path"], "data.path")
    if not given.is_dir():
        found = "a file" if given.exists() else "no such folder"
        raise UserError(f"folder {given}: expected a folder of class/name.png, found {found}")
    training, test = splits.find(given)
    if training == given and (loose := _one_class(given)):
        classes, files, labels = loose
    else:
        classes, files, labels = _listed(training, test if test is not None and split == "test" else training)
    root = given if test is not None else training
    if test is None:
        chosen = np.flatnonzero(_chosen(root, files, labels, settings.get("test_fraction", 0.1), split))
        files, labels = [files[i] for i in chosen], [labels[i] for i in chosen]
    return FolderSource(
        f"folder {root}",
        root,
        [_text(name, root) for name in classes],
        files,
        labels,
        settings["image_size"],
        settings["channels"],
        _broken(os.fspath(given), settings.get("skip_broken", 0)),
    )


def _one_class(folder: paths.Path) -> tuple[list[str], list[paths.Path], list[int]] | None:
    """As `_listed`, of pictures without class folders: one class, of the folder's name. None where there are some."""
    passed_over = PassedOver()
    if subfolders(folder, passed_over) or not passed_over.kinds[LOOSE]:
        return None
    passed_over = PassedOver()
    files, name = pictures_in(folder, passed_over), paths.absolute(folder).name or "pictures"
    say_once(f"folder {folder}: no class folders, so that all {len(files)} pictures are one class, {name}")
    passed_over.say(folder)
    return [name], files, [0] * len(files)


def _listed(training: paths.Path, base: paths.Path) -> tuple[list[str], list[paths.Path], list[int]]:
    """Names of the classes that `training` has; the files of those classes in `base`, and their labels.

    Raises:
      UserError: no class there, or in `training` one without pictures.
    """
    passed_over = PassedOver()
    classes = [p.name for p in subfolders(training, passed_over)]
    if not classes:
        rest = f", and {passed_over}" if passed_over.kinds else ""
        raise UserError(f"folder {training}: expected subfolders of images, one per class, found none{rest}")
    if base != training:
        passed_over = PassedOver()
        subfolders(base, passed_over)
    files: list[paths.Path] = []
    labels: list[int] = []
    without: list[str] = []
    for label, name in enumerate(classes):
        inside = PassedOver()
        found = pictures_in(base / name, inside) if (base / name).is_dir() else []
        if not found:
            if base == training:
                raise no_pictures(base / name, inside)
            without.append(name)
        files += found
        labels += [label] * len(found)
        passed_over.update(inside)
    passed_over.say(base)
    if without:
        few = ", ".join(without[:6]) + (", ..." if without[6:] else "")
        say_once(f"folder {base}: no pictures of {len(without)} of {len(classes)} classes: {few}")
    return classes, files, labels


def _chosen(
    root: paths.Path, files: list[paths.Path], labels: list[int], fraction: float, split: str
) -> np.ndarray:
    """Which files are of a split that vargen makes: bool [M].

    Raises:
      UserError: nothing can be held out.
    """
    texts = [os.fspath(file) for file in files]  # asking each for its name below the root would take long
    start = len(os.fspath(root / "x")) - 1
    same = None
    if paths.is_remote(root):
        say_once(f"folder {root}: held out by name; in a bucket equal pictures are not looked for")
    else:
        same = duplicates.same_content(texts)
    test = held_out([_text(text[start:], root) for text in texts], labels, fraction, same)
    if split == "train":
        return ~test
    if not test.any():
        raise UserError(
            f"folder {root}: expected two different images of a class, one to hold out as the test split, found none"
        )
    return test
