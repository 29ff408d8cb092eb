"""Images in a folder with one subfolder per class."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vargen import paths, progress, spelling
from vargen.data import duplicates, image_file, kept, splits
from vargen.data.image_file import BrokenImage
from vargen.data.kept import KEPT
from vargen.data.listing import Inside, PassedOver, no_pictures, pictures_in, say_once
from vargen.data.sources import Source, digest, held_out
from vargen.errors import UserError, escaped

# Files that are read, at each start, to see which held-out ones are training files too; beyond it --check-data does.
MOST_COMPARED = 100_000


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


class Folder:
    """A folder `class/name.png` (or another of `listing.SUFFIXES`), classes and files in natural order.

    Pictures in no class folder, where there is none, are one class of the folder's name.

    Where it has folders of its own for the splits (`splits.find`), those are taken, and it is said how many of the
    held-out files are equal to training files; else files are held out by the hash of their name (`test_fraction`,
    0.1 by default), files of the same bytes together. In a bucket, where files would have to be fetched for it, their
    bytes are not compared.

    It is listed once, for both splits.

    Raises:
      UserError: no such folder, one that cannot be read, or no class in it.
    """

    def __init__(self, settings: Mapping[str, Any]):
        if not settings["path"]:
            raise UserError(
                "data.path: expected a folder with one subfolder of images per class, found nothing"
            )
        self.settings = settings
        self.given = paths.path(settings["path"], "data.path")
        if not self.given.is_dir():
            found = "a file" if self.given.exists() else "no such folder"
            raise UserError(f"folder {self.given}: expected a folder of class/name.png, found {found}")
        self.splits = splits.find(self.given)
        self.root = self.splits.training.folder if self.splits.held_out is None else self.given

    def source(self, split: str) -> FolderSource:
        """The pictures of a split.

        Raises:
          UserError: a class without pictures in the training split, nothing that can be held out, or a folder that
            cannot be read.
        """
        if self.splits.held_out is None:
            classes, files, labels = self._training
            chosen = np.flatnonzero(self._test if split == "test" else ~self._test)
            if split == "test" and not len(chosen):
                raise UserError(
                    f"folder {self.root}: expected two different images of a class, one to hold out as the test "
                    "split, found none"
                )
            files, labels = [files[i] for i in chosen], [labels[i] for i in chosen]
        else:
            classes, files, labels = self._held_out if split == "test" else self._training
            if split == "test":
                say_copies(f"folder {self.root}", self._training.files, files, MOST_COMPARED)
        return FolderSource(
            f"folder {self.root}",
            self.root,
            [_text(name, self.root) for name in classes],
            files,
            labels,
            self.settings["image_size"],
            self.settings["channels"],
            _broken(os.fspath(self.given), self.settings.get("skip_broken", 0)),
        )

    @functools.cached_property
    def _training(self) -> Listed:
        """Of the training folder; of both splits, where vargen makes them."""
        training, _, loose = self.splits
        listed = self._list(training)
        _check_loose(self.given, loose, len(listed.files), f"{training.folder.name}/")
        return listed

    @functools.cached_property
    def _held_out(self) -> Listed:
        assert self.splits.held_out is not None
        return self._list(self.splits.held_out)

    def _list(self, base: Inside) -> Listed:
        training = self.splits.training
        return _one_class(base.folder, self.given) if splits.is_flat(training) else _listed(training, base)

    @functools.cached_property
    def _test(self) -> np.ndarray:
        """Which files of all are held out: bool [M]."""
        _, files, labels = self._training
        texts = [os.fspath(file) for file in files]  # asking each for its name below the root would take long
        start = len(os.fspath(self.root / "x")) - 1
        same = None
        if paths.is_remote(self.root):
            say_once(f"folder {self.root}: held out by name; in a bucket equal files are not looked for")
        else:
            same = duplicates.same_content(texts)
        names = [_text(text[start:], self.root) for text in texts]
        return held_out(names, labels, self.settings.get("test_fraction", 0.1), same)


class Listed(NamedTuple):
    """Names of classes, files, and their labels."""

    classes: list[str]
    files: list[paths.Path]
    labels: list[int]


def _one_class(folder: paths.Path, given: paths.Path) -> Listed:
    """Pictures without class folders: one class, named as the folder that was given."""
    passed_over = PassedOver()
    files, name = pictures_in(folder, passed_over), paths.absolute(given).name or "pictures"
    say_once(f"folder {folder}: no class folders, so that all {len(files)} pictures are one class, {name}")
    passed_over.say(folder)
    return Listed([name], files, [0] * len(files))


def _listed(training: Inside, base: Inside) -> Listed:
    """The classes that `training` has, and the files of those classes in `base`.

    Raises:
      UserError: no class there, or in `training` one without pictures; more pictures beside the class folders than in
        them; splits inside of classes.
    """
    classes = [p.name for p in training.folders]
    if not classes:
        rest = f", and {training.passed_over}" if training.passed_over.kinds else ""
        raise UserError(
            f"folder {training.folder}: expected subfolders of images, one per class, found none{rest}"
        )
    passed_over = PassedOver()
    passed_over.update(base.passed_over)
    listed, without = Listed(classes, [], []), dict[str, PassedOver]()
    places = spelling.places(classes, [p.name for p in base.folders])
    for label, (name, place) in enumerate(zip(classes, places, strict=True)):
        inside, where = PassedOver(), base.folders[place] if place >= 0 else base.folder / name
        found = pictures_in(where, inside) if where.is_dir() else []
        if not found:
            without[name] = inside
        listed.files.extend(found)
        listed.labels.extend([label] * len(found))
        passed_over.update(inside)
    count = len(classes)
    _check_loose(base.folder, base.loose, len(listed.files), spelling.counted(count, "class folder"))
    if base is training:
        splits.check_nested(base.folder, classes, listed.files)
        for name, inside in without.items():
            raise no_pictures(base.folder / name, inside)
    passed_over.say(base.folder)
    if without:
        few = spelling.listed([*without], 6)
        say_once(f"folder {base.folder}: no pictures of {len(without)} of {len(classes)} classes: {few}")
    return listed


def _check_loose(folder: paths.Path, loose: int, found: int, where: str) -> None:
    """Raises UserError where more pictures lie outside the class folders than in them."""
    if loose > found:
        raise UserError(
            f"folder {folder}: expected pictures in class folders, or all outside of any, found {loose} outside and "
            f"{found} in {where}: move the former into class folders, or the latter elsewhere"
        )


def say_copies(
    name: str, training: Sequence[paths.Path], held_out: Sequence[paths.Path], most: int | None = None
) -> None:
    """Prints a line, once, about held-out files that hold the same bytes as a training file, where there are some.

    Args:
      name: what the line begins with.
      training: files.
      held_out: files; those in buckets are not compared.
      most: if more than so many files had to be read for it, that is said instead.
    """
    if any(map(paths.is_remote, (*training[:1], *held_out[:1]))):
        return
    copies = duplicates.copies([*map(os.fspath, held_out)], [*map(os.fspath, training)], most)
    if copies is None:
        say_once(f"{name}: training and held-out files are not compared, too many; --check-data does it")
    elif copies:
        say_once(
            f"{name}: {copies} of {len(held_out)} held-out pictures are also training pictures (equal files)"
        )
