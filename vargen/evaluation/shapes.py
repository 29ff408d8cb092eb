"""Pictures from words and words from pictures, measured on the set "shapes" by reading both exactly: no network judges.

A picture is read place by place: the nearest of all drawings that the set can have there, where all are plain or all
slightly blurred, as the picture is. A caption is parsed by the grammar of `vargen.data.scenes`. Either gives a scene,
which is held against the scene that was asked for.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence

import numpy as np

from vargen import inputs
from vargen.data import scenes, shapes
from vargen.errors import UserError

UNREADABLE = -1  # in the place of a code: no drawing is near; or a scene of these: the text is no caption
FAR = 0.12  # root mean squared difference from a drawing, of levels from 0 to 1, at which nothing is read any more
# Deviations in pixels: a picture is read with all drawings under each, and the reading that leaves least is kept.
BLURS = (0.0, 0.5, 0.8)
PASSES = 2
ROWS = 256  # pictures at once
ASPECTS: dict[str, Callable] = dict(
    colour=lambda code: scenes.parts(code)[2],
    shape=lambda code: scenes.parts(code)[1],
    size=lambda code: scenes.parts(code)[0],
    all=lambda code: code,
)


def words_to_pictures(images: np.ndarray, captions: Sequence[str]) -> dict[str, float]:
    """How well pictures show what their captions ask for.

    Args:
      images: uint8, or floats in [-1, 1], [M, S, S, 3].
      captions: M texts that `scenes.parse` reads.

    Returns:
      What `agreement` gives, and `readable`, the share of pictures in which each place is empty or holds a shape.

    Raises:
      UserError: other shapes and sizes, a text that is no caption, another number of texts than of pictures.
    """
    asked = _parsed(captions)
    found = read(images)
    _check_count(len(asked), len(found), "pictures")
    return agreement(found, asked) | dict(readable=_share((found >= 0).all(axis=1)))


def pictures_to_words(texts: Sequence[str], captions: Sequence[str]) -> dict[str, float]:
    """How well texts say what pictures show; shapes may be named in any order.

    Args:
      texts: M of them, whatever a model said.
      captions: of the M pictures.

    Returns:
      What `agreement` gives, where a text that is no caption finds nothing, and `parsable`, the share of captions.

    Raises:
      UserError: a caption that is none, another number of texts than of captions.
    """
    asked = _parsed(captions)
    found = np.full_like(asked, UNREADABLE)
    _check_count(len(asked), len(texts), "texts")
    for row, text in zip(found, texts):
        with contextlib.suppress(UserError):
            row[:] = scenes.parse(text)
    return agreement(found, asked) | dict(parsable=_share((found >= 0).all(axis=1)))


def agreement(found: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """Shares of what was asked for that was found.

    Args:
      found: int [M, 9], scenes or `UNREADABLE`.
      asked: int [M, 9], scenes.

    Returns:
      `right`: of scenes, those found exactly, with nothing beside. Of the shapes asked for: `place`, where a shape
      lies at the same place; `colour`, `shape` and `size`, where it also has that; `all`, where it has all three.
      Each also as `chance_right` and so on: the same with every scene found held against every scene asked for,
      which knowing how scenes are distributed, and nothing of the one asked for, gives.
    """
    if not len(asked):
        raise UserError("evaluation: expected captions, found none")
    measured = dict(right=_share((found == asked).all(axis=1)))
    there, number = asked > 0, (asked > 0).sum()
    pairs = len(asked) * number
    both = there & (found > 0)
    measured["place"] = float(both.sum() / number)
    chance = dict(place=float(np.sum(there.sum(axis=0) * (found > 0).sum(axis=0)) / pairs))
    for name, of in ASPECTS.items():
        a, b = (np.where(x > 0, of(x), -1) for x in (asked, found))
        measured[name] = float((both & (a == b)).sum() / number)
        values = range(max(a.max(), b.max()) + 1)
        chance[name] = float(sum(((a == v).sum(axis=0) * (b == v).sum(axis=0)).sum() for v in values) / pairs)
    distinct, which = np.unique(np.concatenate([asked, found]), axis=0, return_inverse=True)
    a, b = (np.bincount(half, minlength=len(distinct)) for half in np.split(which.reshape(-1), 2))
    chance = dict(right=float(a @ b / len(asked) ** 2), **chance)
    return measured | {f"chance_{name}": value for name, value in chance.items()}


def _parsed(captions: Sequence[str]) -> np.ndarray:
    return np.array([scenes.parse(text) for text in captions]).reshape(-1, len(scenes.PLACES))


def _share(of: np.ndarray) -> float:
    return float(np.mean(of)) if len(of) else 0.0


def _check_count(expected: int, found: int, what: str) -> None:
    if expected != found:
        raise UserError(f"evaluation: expected as many {what} as captions, {expected}, found {found}")


def read(images: np.ndarray) -> np.ndarray:
    """What pictures show: int64 [M, 9], scenes as of `vargen.data.scenes`, `UNREADABLE` at a place of something else.

    A place is compared over all pixels that it has a part in, without what was read at its neighbours.

    Args:
      images: uint8, or floats in [-1, 1], [M, S, S, 3].

    Raises:
      UserError: another shape, sides below 16 or above 128, floats outside that range.
    """
    shape, sides = np.shape(images), f"{shapes.SMALLEST} to {shapes.LARGEST} pixels"
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or not shape[0]:
        raise UserError(f"images: expected square ones in colour [M, S, S, 3], found an array {list(shape)}")
    if not shapes.SMALLEST <= shape[1] <= shapes.LARGEST:
        raise UserError(f"images: expected sides of {sides}, found {shape[1]}")
    if getattr(images, "dtype", None) == np.uint8:
        levels = np.asarray(images, np.float32) / 255 - 1
    else:
        levels = (np.asarray(inputs.images(images, *shape[1:])) - 1) / 2
    # What lies on white: 0 where nothing does, down to -1.
    levels = np.clip(levels, -1, 0)
    found = []
    for start in range(0, len(levels), ROWS):
        codes, errors = zip(*(_read(levels[start : start + ROWS], blur) for blur in BLURS), strict=True)
        best = np.argmin(errors, axis=0)
        found.append(np.stack(codes)[best, np.arange(len(best))])
    return np.concatenate(found)


def _read(levels: np.ndarray, blur: float) -> tuple[np.ndarray, np.ndarray]:
    """What is read with drawings under a blur, int64 [b, 9], and squares of what is left of each picture, [b].

    `levels` is float32 [b, S, S, 3], 0 for white and -1 for none.
    """
    size, rest = levels.shape[1], levels.copy()
    read = np.zeros((len(levels), len(scenes.PLACES)), np.int64)
    drawn: list = [0.0] * len(scenes.PLACES)
    for _ in range(PASSES):
        for place in range(len(scenes.PLACES)):
            rows, columns = shapes.window(place, size)
            here = rest[:, rows, columns] + drawn[place]
            codes, table, squares = _templates(place, size, blur)
            flat = here.reshape(len(here), -1)
            # Of what is shorter than half the shortest drawing, nothing (the first) is nearest.
            some = np.sum(flat**2, axis=1) >= squares[1:].min() / 4
            best = np.zeros(len(flat), np.int64)
            best[some] = np.argmin(squares - 2 * (flat[some] @ table.T), axis=1)
            drawn[place] = table[best].reshape(here.shape)
            rest[:, rows, columns] = here - drawn[place]
            far = np.sqrt(np.mean(rest[:, rows, columns] ** 2, axis=(1, 2, 3))) > FAR
            read[:, place] = np.where(far, UNREADABLE, codes[best])
    return read, np.sum(rest**2, axis=(1, 2, 3))


@functools.lru_cache(maxsize=len(scenes.PLACES) * len(BLURS) * 2)
def _templates(place: int, size: int, blur: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes int [K], drawings float32 [K, h * w * 3] as `_read` sees them, and their squares [K]; nothing is first."""
    drawings = shapes.drawings(place, size).astype(np.float64) / 255 - 1
    codes = np.repeat(np.arange(scenes.CODES), drawings.shape[1])
    kept = (codes > 0) | (np.arange(len(codes)) == 0)  # of nothing, one is enough
    table = blurred(drawings.reshape(len(codes), *drawings.shape[2:])[kept], blur)
    table = table.reshape(len(table), -1).astype(np.float32)
    return codes[kept], table, np.sum(table**2, axis=1)


def blurred(images: np.ndarray, deviation: float) -> np.ndarray:
    """Images [M, h, w, C] through a Gaussian of a deviation in pixels, below 2; what lies outside is 0."""
    if not deviation:
        return images
    weights = np.exp(-(np.arange(-8, 9) ** 2) / (2 * deviation**2))
    for axis in (1, 2):
        sides = [(8, 8) if a == axis else (0, 0) for a in range(4)]
        spans = np.lib.stride_tricks.sliding_window_view(np.pad(images, sides), 17, axis=axis)
        images = spans @ (weights / weights.sum())
    return images
