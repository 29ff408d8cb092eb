"""What a picture of shapes shows, in numbers and in words: up to three coloured shapes at nine places.

A scene is int64 [9], one number a place: 0 where nothing lies, else 1 + `size` + 2 (`shape` + 4 `colour`). In words:

    a red circle at the top left, a small blue square at the centre and a green cross at the bottom

Shapes are named in the order of reading, so that a scene has one caption; `parse` takes any order.
"""

from __future__ import annotations

import numpy as np

from vargen import words
from vargen.errors import UserError

COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("", "small")
PLACES = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
MOST = 3  # shapes of a scene
KINDS = len(COLOURS) * len(SHAPES)
CODES = 1 + KINDS * len(SIZES)  # of a place

_places, _kinds = np.arange(len(PLACES)), np.arange(KINDS)
UNSEEN = (_kinds // len(SHAPES) + 2 * (_kinds % len(SHAPES))) % len(PLACES) == _places[:, None]
"""bool [9, 24]: the combinations of place, and colour and shape, that training never sees.

Each colour of a shape is unseen at one of the nine places; at each place each colour is unseen in one shape at most,
and each shape in one colour: whatever is unseen is new as a triple, while all its pairs are seen.
"""


def parts(code):
    """Size, shape and colour of codes above 0, of the same shape as `code`."""
    code = code - 1
    return code % 2, code // 2 % len(SHAPES), code // (2 * len(SHAPES))


def kind(code):
    """Colour and shape of codes above 0 as one number, from 0 to 23: `name` says it."""
    return (code - 1) // len(SIZES)


def name(kind: int) -> str:
    """ "red circle"."""
    return f"{COLOURS[kind // len(SHAPES)]} {SHAPES[kind % len(SHAPES)]}"


def caption(scene: np.ndarray) -> str:
    """A scene int [9] in words."""
    said = []
    for place in np.flatnonzero(scene):
        size, _, _ = parts(scene[place])
        said.append(" ".join(f"a {SIZES[size]} {name(kind(scene[place]))} at the {PLACES[place]}".split()))
    return " and ".join([", ".join(said[:-1]), said[-1]] if said[1:] else said)


def parse(text: str) -> np.ndarray:
    """The scene int64 [9] that a caption tells of.

    Raises:
      UserError: the text is no caption: the first word that can't stand where it does, and what can; no shape, more
        than three, two at one place.
    """
    scene = np.zeros(len(PLACES), np.int64)
    rest = words.split(text)

    def take(*expected: str, or_none: bool = False) -> str:
        if rest and rest[0] in expected:
            return rest.pop(0)
        if or_none:
            return ""
        found = repr(rest[0]) if rest else "the end"
        raise UserError(f"caption {text!r:.200}: expected {' or '.join(expected)}, found {found}")

    joint = ","
    for count in range(MOST):
        take("a")
        size = take("small", or_none=True)
        colour, shape = take(*COLOURS), take(*SHAPES)
        take("at")
        take("the")
        place = take("top", "bottom", "left", "right", "centre")
        if place in ("top", "bottom"):
            place = f"{place} {take('left', 'right', or_none=True)}".strip()
        at = PLACES.index(place)
        if scene[at]:
            raise UserError(f"caption {text!r:.200}: expected one shape at a place, found two at the {place}")
        scene[at] = 1 + SIZES.index(size) + 2 * (SHAPES.index(shape) + len(SHAPES) * COLOURS.index(colour))
        if joint == "and" or (count == 0 and not rest):
            break
        joint = take("and") if count == MOST - 2 else take(",", "and")
    if rest:
        raise UserError(f"caption {text!r:.200}: expected the end, found {rest[0]!r}")
    return scene
