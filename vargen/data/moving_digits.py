"""Clips that vargen draws itself: one of the digits that ship with it, at half the height, moves and bounces.

A clip is a function of (seed, split, index): each handwritten digit is drawn in some clips, from a place and with a
speed of its own, whole pixels a frame down and across, and turns round where it meets an edge. Its label is the digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vargen.data import digits
from vargen.data.sources import Source, digest
from vargen.data.transforms import uniform_draws
from vargen.errors import UserError

CLIPS = dict(train=4, test=1)  # of each handwritten digit
SMALLEST = 2 * digits.SIDE  # pixels, in which a digit has room to move
SPEEDS = (-2, -1, 1, 2)  # sixteenths of the side, a frame


class MovingDigits(Source):
    """Clips of one digit each, drawn when they are asked for.

    Args:
      still: uint8 [M, s, s, C], the digits.
      labels: int [M].
      places: int64 [N, T, 2], rows and columns of the digit's upper left corner in N clips, of which clip i shows digit
        i modulo M.
      image_size: side of the frames in pixels.
    """

    in_memory = True

    def __init__(self, still: np.ndarray, labels: np.ndarray, places: np.ndarray, image_size: int):
        super().__init__("moving_digits", [str(digit) for digit in range(10)], image_size, still.shape[-1])
        self.room = image_size - still.shape[1]
        # A frame is a window on the digit, which lies amid as much black as it can move away.
        self.still = np.pad(still, [(0, 0), (self.room,) * 2, (self.room,) * 2, (0, 0)])
        self.labels, self.places = labels, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.gather(np.array([index]))
        return dict(image=record["image"][0], label=int(record["label"][0]))

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`dict(image=uint8 [b, T, S, S, C], label=int32 [b])` for int [b] indices."""
        indices = np.asarray(indices)
        which = indices % len(self.labels)
        first = self.room - self.places[indices]
        rows, columns = (first[..., i, None] + np.arange(self.image_size) for i in range(2))
        clips = self.still[which[:, None, None, None], rows[..., None], columns[..., None, :]]
        return dict(image=clips, label=self.labels[which].astype(np.int32))

    def fingerprint(self) -> str:
        """A hash of all places, of the first clips as they are drawn, and of the digits and their names."""
        some = self.gather(np.arange(min(64, len(self))))["image"]
        return digest(self.classes, self.places.tobytes(), self.still.tobytes(), some.tobytes())


def load(settings: Mapping[str, Any], split: str, seed: int = 0) -> MovingDigits:
    """5748 clips of the training digits, or 360 of the held-out ones (36 of each class).

    Args:
      settings: `config.data`: image_size, channels, frames.
      split: "train" or "test".
      seed: of places and speeds.

    Raises:
      UserError: frames in which a digit can't move, or a single one.
    """
    size, frames = settings["image_size"], settings.get("frames", 1)
    if size < SMALLEST:
        raise UserError(f"data.image_size: expected at least {SMALLEST} for moving_digits, found {size}")
    if frames < 2:
        raise UserError(f"data.frames: expected at least 2 for moving_digits, found {frames}")
    still = digits.load({**settings, "image_size": size // 2}, split)
    count = len(still) * CLIPS[split]
    positions = np.arange(count) + 2**32 * list(CLIPS).index(split)
    return MovingDigits(still.images, still.labels, _places(seed, positions, frames, size), size)


def _places(seed: int, positions: np.ndarray, frames: int, size: int) -> np.ndarray:
    """int64 [b, T, 2]: where each clip's digit lies, from 0 to the room that it has in frames of `size` pixels."""
    room = size - size // 2
    draws = uniform_draws(seed, positions)
    start = (draws[:, :2] * (room + 1)).astype(np.int64)
    speed = np.array(SPEEDS)[(draws[:, 2:4] * len(SPEEDS)).astype(np.int64)] * (size // SMALLEST)
    run = (start[:, None] + speed[:, None] * np.arange(frames)[:, None]) % (2 * room)
    return np.where(run > room, 2 * room - run, run)
