"""What every set of images looks like to the rest of vargen: a random-access `Source`; and what sources share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vargen import spelling
from vargen.errors import UserError

SPLITS = ("train", "test")
MOST_MEMORY = 2**32  # bytes that the images of a set held in memory may take


class Source:
    """Labelled images by index, without randomness.

    `source[i]` is `dict(image=uint8 [H, W, C], label=int)`; images may have any size unless `in_memory`. Where they are
    clips, they are [T, H, W, C].

    Attributes:
      name: what the set is called in messages.
      classes: names of the classes; labels index this list.
      image_size: side in pixels of the images that training and evaluation see.
      channels: 1 (grey) or 3 (red, green, blue).
      in_memory: whether `gather` serves whole batches at once.
      captions: what each image shows, in words; None where that isn't known.
    """

    in_memory = False
    captions: Sequence[str] | None = None

    def __init__(self, name: str, classes: Sequence[str], image_size: int, channels: int):
        self.name = name
        self.classes = list(classes)
        self.image_size = image_size
        self.channels = channels

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise NotImplementedError

    def read(self, index: int) -> None:
        """Reads what lies at an index, and nothing in its place.

        Raises:
          UserError: it cannot be read.
        """
        self[index]

    def fingerprint(self) -> str:
        """A hash that other images, or other labels, would change; of files their names, sizes and times."""
        raise NotImplementedError


class ArraySource(Source):
    """Images held in memory at their final size.

    Args:
      images: uint8 [M, S, S, C].
      labels: int [M].
    """

    in_memory = True

    def __init__(self, name: str, classes: Sequence[str], images: np.ndarray, labels: np.ndarray):
        super().__init__(name, classes, images.shape[1], images.shape[3])
        self.images = np.ascontiguousarray(images, dtype=np.uint8)
        self.labels = np.asarray(labels, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(image=self.images[index], label=int(self.labels[index]))

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`dict(image=uint8 [b, S, S, C], label=int32 [b])` for int [b] indices."""
        return dict(image=self.images[indices], label=self.labels[indices])

    def fingerprint(self) -> str:
        """A hash of the pixels, labels and names of classes."""
        return digest(self.classes, self.labels.tobytes(), self.images.tobytes())


def digest(*parts: Any) -> str:
    """A hash of texts, bytes, numbers and lists of them."""
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode("utf-8", "surrogateescape")
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()[:16]


def check_memory(name: str, count: int, size: int, channels: int) -> None:
    """Raises UserError where `count` images of that size don't fit in `MOST_MEMORY`."""
    if count * size**2 * channels > MOST_MEMORY:
        most = int((MOST_MEMORY / (count * channels)) ** 0.5)
        raise UserError(
            f"data.image_size: expected at most {most} for {name} ({count} images held in memory), found {size}"
        )


def held_out(
    keys: Sequence[str], groups: ArrayLike, fraction: float, contents: ArrayLike | None = None
) -> np.ndarray:
    """Which items belong to the test split: bool [M], a function of each item's key alone where it can be.

    An item is held out when the hash of its key falls below `fraction`, so adding files moves no other file
    between splits. Items of the same content stay together, by the shortest of their keys (a copy's is longer), also
    where they are in several groups. Only a group left without a content on one side gives the one with the nearest
    hash to it: always to training, to the test split where no group is left without training then.

    Args:
      keys: a stable name of each item; Unicode's forms of one count as the same.
      groups: the class of each item.
      fraction: about how much to hold out, between 0 and 1.
      contents: equal numbers where items have the same content; None where all differ.
    """
    _, unit = np.unique(np.arange(len(keys)) if contents is None else contents, return_inverse=True)
    names: list[str] = [""] * (int(unit.max(initial=-1)) + 1)
    for u, key in zip(unit.tolist(), map(spelling.composed, keys), strict=True):
        names[u] = min(names[u] or key, key, key=lambda k: (len(k), k))
    digests = (hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8] for name in names)
    score = np.array([int.from_bytes(d, "big") / 2.0**64 for d in digests], dtype=np.float64)
    test = score < fraction
    group = np.asarray(groups)
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    members = [np.unique(unit[part]) for part in np.split(order, cuts)]
    for units in members:
        if test[units].all():
            test[units[np.argmax(score[units])]] = False
    homes: dict[int, list[int]] = {}  # of contents in several groups
    for g, units in enumerate(members):
        for u in units.tolist():
            homes.setdefault(u, []).append(g)
    for units in members:
        if len(units) > 1 and not test[units].any():
            for u in units[np.argsort(score[units])].tolist():
                if all((~test[members[g]]).sum() > 1 for g in homes[u]):
                    test[u] = True
                    break
    return test[unit]
