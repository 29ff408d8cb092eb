"""Pictures with captions that vargen draws itself: one to three coloured shapes on white, at nine places.

A picture is a function of (seed, split, index). Its caption says all that `scenes` can say of it; what the caption
leaves open is where exactly each shape lies: a 48th of the side up or down, left or right, or not.

Splits share no caption. "train" and "test" have the same combinations of colour, shape and place; "unseen" has only
those that the two never have (`scenes.UNSEEN`), to measure whether a model composes what it learnt.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from vargen.data import scenes
from vargen.data.sources import Source, digest
from vargen.data.transforms import DRAWS, uniform_draws
from vargen.errors import UserError

COUNTS = dict(train=20_000, test=2_000, unseen=2_000)  # pictures of a split
SMALLEST, LARGEST = 16, 128  # sides in pixels; below, shapes are hard to tell apart
FRACTIONS = (0.01, 0.9)  # of captions held out
WHITE = 255
COLOURS = np.array([[220, 40, 40], [40, 160, 60], [40, 80, 220], [250, 190, 0], [170, 50, 180], [20, 20, 20]])
# Of the side: half of a shape's height by size, and how far it is moved. Nothing reaches into another place.
HALVES, MOVE = (0.145, 0.1), 1 / 48
MOVES = tuple(itertools.product((-1, 0, 1), repeat=2))  # rows and columns
ARM = 0.25  # of a cross: an arm's width in its length, from end to end
SAMPLES = 16  # points a pixel and direction at which it is asked whether it is inside
NUMBERS = 4 * DRAWS  # uniform numbers that a draw takes: 1 + 9 + 3 * 3, and 5 left over
TRIES = 2**20  # most draws of a picture until its caption is one of its split's


class Shapes(Source):
    """Pictures of shapes, drawn when they are asked for.

    Attributes:
      scenes: int64 [M, 9], what each picture shows (`vargen.data.scenes`).
      moves: int64 [M, 9], where each shape lies about its place, as a place in `MOVES`.
      captions: texts of all M pictures.
    """

    in_memory = True

    def __init__(self, image_size: int, shown: np.ndarray, moves: np.ndarray):
        super().__init__("shapes", [scenes.name(k) for k in range(scenes.KINDS)], image_size, 3)
        self.scenes, self.moves = shown, moves

    def __len__(self) -> int:
        return len(self.scenes)

    @functools.cached_property
    def captions(self) -> list[str]:  # type: ignore[override]
        """What each picture shows, in words."""
        return [scenes.caption(scene) for scene in self.scenes]

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.gather(np.array([index]))
        return dict(image=record["image"][0], label=int(record["label"][0]))

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`dict(image=uint8 [b, S, S, 3], label=int32 [b])` for int [b] indices; a label is the first shape's kind."""
        shown = self.scenes[indices]
        first = shown[np.arange(len(shown)), np.argmax(shown > 0, axis=1)]
        label = scenes.kind(first).astype(np.int32)
        return dict(image=draw(shown, self.moves[indices], self.image_size), label=label)

    def fingerprint(self) -> str:
        """A hash of what all pictures show, of the first of them as they are drawn, and of the names of classes."""
        some = self.gather(np.arange(min(64, len(self))))["image"]
        return digest(self.classes, self.scenes.tobytes(), self.moves.tobytes(), some.tobytes())


def load(settings: Mapping[str, Any], split: str, seed: int = 0) -> Shapes:
    """20,000 pictures for training, 2,000 held-out ones, or 2,000 of unseen combinations.

    Args:
      settings: `config.data`: image_size, channels, test_fraction (about which share of the captions is held out).
      split: "train", "test" or "unseen".
      seed: of all that is drawn; the captions that are held out are the same for each.

    Raises:
      UserError: pictures too small or too large, grey ones, changes under which captions aren't true any more; hardly
        any captions for training or held out; another split.
    """
    size, fraction = settings["image_size"], settings.get("test_fraction", 0.1)
    if split not in COUNTS:
        raise UserError(f"data split: expected one of {', '.join(COUNTS)}, found {split!r}")
    if not SMALLEST <= size <= LARGEST:
        at = f"at least {SMALLEST}" if size < SMALLEST else f"at most {LARGEST}"
        raise UserError(f"data.image_size: expected {at} for shapes, found {size}")
    if settings["channels"] != 3:
        raise UserError(
            f"data.channels: expected 3 for shapes, which differ in colour, found {settings['channels']}"
        )
    if not FRACTIONS[0] <= fraction <= FRACTIONS[1]:
        low, high = FRACTIONS
        raise UserError(f"data.test_fraction: expected from {low} to {high} for shapes, found {fraction:g}")
    for field, none in dict(flip=False, shift=0, crop="center").items():
        if (found := settings.get(field, none)) != none:
            raise UserError(
                f"data.{field}: expected {none} for shapes, whose captions say what lies where, found {found}"
            )
    return Shapes(size, *scenes_of(split, fraction, seed))


def scenes_of(split: str, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the pictures of a split show, int64 [M, 9], and how their shapes are moved, int64 [M, 9]."""
    count = COUNTS[split]
    shown, moves = (np.zeros((count, len(scenes.PLACES)), np.int64) for _ in range(2))
    left, start = np.arange(count), sum(COUNTS.values()) * TRIES * list(COUNTS).index(split)
    for tried in range(TRIES):
        shown[left], moves[left] = _drawn(seed, start + left * TRIES + tried, split == "unseen")
        left = left[~_belongs(shown[left], split, fraction)]
        if not len(left):
            break
    return shown, moves


def _belongs(shown: np.ndarray, split: str, fraction: float) -> np.ndarray:
    """Whether scenes [M, 9] are a split's: a function of each alone, so that no caption is in two."""
    if split == "unseen":
        return np.ones(len(shown), bool)
    number = shown @ scenes.CODES ** np.arange(len(scenes.PLACES))
    return (uniform_draws(0, number)[:, 0] < fraction) == (split == "test")


def _drawn(seed: int, positions: np.ndarray, unseen: bool) -> tuple[np.ndarray, np.ndarray]:
    """A scene and its moves for each position of a stream, int64 [b, 9] each."""
    every = positions[:, None] * (NUMBERS // DRAWS) + np.arange(NUMBERS // DRAWS)
    u = uniform_draws(seed, every.reshape(-1)).reshape(len(positions), NUMBERS)
    count = 1 + (u[:, 0] * scenes.MOST).astype(np.int64)
    places = np.argsort(u[:, 1:10], axis=1)[:, : scenes.MOST]
    allowed = scenes.UNSEEN == unseen
    counts = allowed.sum(axis=1)
    order = np.argsort(~allowed, axis=1, kind="stable")  # those allowed come first
    which, small, move = u[:, 10:19].reshape(-1, 3, scenes.MOST).transpose(1, 0, 2)
    kind = order[places, (which * counts[places]).astype(np.int64)]
    code = 1 + (small * len(scenes.SIZES)).astype(np.int64) + len(scenes.SIZES) * kind
    code *= np.arange(scenes.MOST) < count[:, None]
    shown, moves = (np.zeros((len(positions), len(scenes.PLACES)), np.int64) for _ in range(2))
    np.put_along_axis(shown, places, code, axis=1)
    np.put_along_axis(moves, places, (move * len(MOVES)).astype(np.int64), axis=1)
    return shown, moves * (shown > 0)


def draw(shown: np.ndarray, moves: np.ndarray, size: int) -> np.ndarray:
    """Pictures uint8 [M, size, size, 3] of scenes int [M, 9], whose shapes are moved by `MOVES[moves]`, [M, 9]."""
    pictures = np.full((len(shown), size, size, 3), WHITE, np.uint8)
    for place in range(len(scenes.PLACES)):
        rows, columns = window(place, size)
        there = np.flatnonzero(shown[:, place])
        pixels = drawings(place, size)[shown[there, place], moves[there, place]]
        # A pixel of two places is white in one of them at least; where it isn't quite, what darkens it adds up.
        here = pictures[there, rows, columns].astype(np.int64) + pixels - WHITE
        pictures[there, rows, columns] = np.clip(here, 0, 255)
    return pictures


def window(place: int, size: int) -> tuple[slice, slice]:
    """Rows and columns of a place: those that are partly or wholly its own."""
    return tuple(slice(size * i // 3, -(-size * (i + 1) // 3)) for i in divmod(place, 3))


@functools.lru_cache(maxsize=len(scenes.PLACES) * 4)
def drawings(place: int, size: int) -> np.ndarray:
    """All that can lie at a place: uint8 [49, 9, h, w, 3], by its code (0: nothing) and its move, over `window`."""
    rows, columns = window(place, size)
    centre = (np.array(divmod(place, 3)) + 0.5) / 3
    table = np.full(
        (scenes.CODES, len(MOVES), rows.stop - rows.start, columns.stop - columns.start, 3), WHITE
    )
    codes = np.arange(1, scenes.CODES)
    small, shape, colour = scenes.parts(codes)
    for i, s, m in itertools.product(range(len(scenes.SHAPES)), range(len(HALVES)), range(len(MOVES))):
        y, x = centre + np.array(MOVES[m]) * MOVE
        covered = coverage(scenes.SHAPES[i], HALVES[s], y, x, rows, columns, size)
        alike = (shape == i) & (small == s)
        ink = (COLOURS - WHITE)[colour[alike], None, None]
        table[codes[alike], m] = np.rint(WHITE + covered[..., None] * ink)
    return table.astype(np.uint8)


def coverage(
    shape: str, half: float, y: float, x: float, rows: slice, columns: slice, size: int
) -> np.ndarray:
    """Which share of each pixel a shape covers: float64 [h, w], multiples of 1 / 256.

    Args:
      shape: one of `scenes.SHAPES`.
      half: half its height and width, as are all others in sides of the picture.
      y, x: its centre, from the upper left corner.
      rows, columns: the pixels.
      size: pixels of the picture's side.
    """
    dy, dx = (
        (np.arange(part.start * SAMPLES, part.stop * SAMPLES) + 0.5) / (size * SAMPLES) - centre
        for part, centre in ((rows, y), (columns, x))
    )
    dy, dx = dy[:, None], np.abs(dx)
    if shape == "circle":
        inside = dx**2 + dy**2 <= half**2
    elif shape == "square":
        inside = np.maximum(dx, np.abs(dy)) <= half
    elif shape == "triangle":  # its tip is above
        inside = (dx <= (dy + half) / 2) & (dy <= half)
    else:
        near, far = np.minimum(dx, np.abs(dy)), np.maximum(dx, np.abs(dy))
        inside = (near <= ARM * half) & (far <= half)
    h, w = (side // SAMPLES for side in inside.shape)
    return inside.reshape(h, SAMPLES, w, SAMPLES).mean(axis=(1, 3))
