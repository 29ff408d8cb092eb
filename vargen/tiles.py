"""Large pictures in overlapping tiles: where these lie, how they are blended, and how much of their seams is seen."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vargen.errors import UserError

OVERLAP = 4  # tiles share one in so many of their pixels with the next


def starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side, the first at 0 and the last flush with the end; as evenly as pixels allow."""
    count = 1 + math.ceil((side - tile) / (tile - overlap))
    return [round(i * (side - tile) / max(count - 1, 1)) for i in range(count)]


def weights(side: int, tile: int, places: list[int]) -> np.ndarray:
    """float32 [tiles, tile]: how much each tile counts for its pixels; those of a pixel add up to 1.

    A tile fades in and out linearly over what it shares with its neighbours, and counts alone elsewhere.
    """
    pixels = np.arange(tile, dtype=np.float64)
    found = np.zeros((len(places), tile))
    total = np.zeros(side)
    for i, place in enumerate(places):
        rise = pixels + 1 if i else np.full(tile, np.inf)
        fall = tile - pixels if i < len(places) - 1 else np.full(tile, np.inf)
        found[i] = np.minimum(np.minimum(rise, fall), tile)
        total[place : place + tile] += found[i]
    return np.stack([w / total[p : p + tile] for w, p in zip(found, places)]).astype(np.float32)


def through(
    function: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    tile: tuple[int, int],
    overlap: tuple[int, int] | None = None,
) -> np.ndarray:
    """An image through a function of tiles, whose results are blended where they overlap.

    Args:
      function: tiles float32 [T, h, w, C] -> float32 of the same shape.
      image: float32 [H, W, C].
      tile: (h, w).
      overlap: pixels that neighbours share at least, in rows and columns; None: a quarter of a tile. 0: none, seams
        are as they come.

    Returns:
      float32 [H, W, C].

    Raises:
      UserError: an image smaller than a tile.
    """
    sides, overlap = image.shape[:2], _overlap(tile, overlap)
    if any(side < t for side, t in zip(sides, tile, strict=True)):
        raise UserError(
            f"tile: expected one no larger than the picture, {sides[0]}x{sides[1]} pixels, found {tile[0]}x{tile[1]}"
        )
    rows, columns = (starts(side, t, o) for side, t, o in zip(sides, tile, overlap, strict=True))
    shares = [weights(side, t, at) for side, t, at in zip(sides, tile, (rows, columns), strict=True)]
    places = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
    cut = [image[rows[i] : rows[i] + tile[0], columns[j] : columns[j] + tile[1]] for i, j in places]
    result = np.zeros(image.shape, np.float32)
    for (i, j), found in zip(places, function(np.stack(cut)), strict=True):
        share = shares[0][i][:, None, None] * shares[1][j][:, None]
        result[rows[i] : rows[i] + tile[0], columns[j] : columns[j] + tile[1]] += share * found
    return result


def seams(
    original: np.ndarray,
    reconstruction: np.ndarray,
    tile: tuple[int, int],
    overlap: tuple[int, int] | None = None,
) -> float:
    """How much more the error jumps from pixel to pixel where tiles meet than elsewhere: 1 where no seam is seen.

    The ratio of two means of |e(x + 1) - e(x)|, e = reconstruction - original: over the neighbours in rows and columns
    of which one lies in two tiles or across a border, and over all others. 1 too where there are none of either.

    Args:
      original, reconstruction: float32 [H, W, C].
      tile, overlap: as of `through`.
    """
    error, jumps = np.asarray(reconstruction, np.float64) - original, ([], [])
    for axis, (t, o) in enumerate(zip(tile, _overlap(tile, overlap), strict=True)):
        at = starts(error.shape[axis], t, o)
        meet = np.zeros(error.shape[axis] - 1, bool)
        for before, after in zip(at, at[1:]):
            meet[after - 1 : before + t] = True
        jump = np.abs(np.diff(error, axis=axis)).swapaxes(0, axis)
        jumps[0].append(jump[meet].ravel())
        jumps[1].append(jump[~meet].ravel())
    there, elsewhere = (np.concatenate(x) for x in jumps)
    if not len(there) or not len(elsewhere) or not elsewhere.any():
        return 1.0
    return float(there.mean() / elsewhere.mean())


def _overlap(tile: tuple[int, int], overlap: tuple[int, int] | None) -> tuple[int, int]:
    return (tile[0] // OVERLAP, tile[1] // OVERLAP) if overlap is None else overlap
