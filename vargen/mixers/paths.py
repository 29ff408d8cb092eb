"""Scan paths: the sequence in which a recurrent mixer visits its rows, and rows laid out on their grid.

Rows are sorted by step first, and within a step by the path's key, a function of where they lie. So every path is
legal under every order: the recurrence runs forward across steps whatever it does within one, nothing leaks, and
a cached form hands each path's state on from step to step. Rows that lie nowhere (a condition) come first within
their step, on paths that run backwards too. Rows that the key doesn't tell apart keep their sequence.

The paths, of which all but "forward" need steps of several slots:

  forward, reverse                    row by row, and backwards (Vim, arXiv 2401.09417);
  columns, columns_reverse            column by column: with the two above the cross-scan of VMamba, 2401.10166;
  zigzag_0 ... zigzag_7               to and fro from each corner, by rows (even) or by columns (odd), no two
                                      neighbours apart (ZigMa, arXiv 2403.13802, in its authors' numbering);
  windows_W, windows_W_columns,       W x W windows one after another, by rows or by columns within and between
  and either with _reverse            (LocalMamba, arXiv 2403.09338).

Frames come one after another, backwards on the paths named reverse.
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.layout import Layout
from vargen.slots import Grid

CROSS_SCAN = ("forward", "columns", "reverse", "columns_reverse")
ZIGZAG = tuple(f"zigzag_{i}" for i in range(8))
_WINDOWS = re.compile(r"windows_([1-9]\d*)(_columns)?(_reverse)?")


def check_paths(mixer: str, paths, grid: Grid, layout: Layout) -> None:
    """Raises ValueError for a path that doesn't exist, or can't do what its name says under the layout."""
    if not paths:
        raise ValueError(f"mixer {mixer}: expected at least one path, found none")
    for path in paths:
        if path not in ("forward", "reverse", *CROSS_SCAN, *ZIGZAG) and not _WINDOWS.fullmatch(path):
            known = "forward, reverse, columns, columns_reverse, zigzag_0 to zigzag_7, windows_W[_columns][_reverse]"
            raise ValueError(f"mixer {mixer}: expected paths among {known}, found {path!r}")
        if path != "forward" and layout.one_by_one:
            raise ValueError(
                f"mixer {mixer}: path {path} needs steps of several slots, found an order of one slot a step"
            )
        levels = len(grid.levels)
        if path in ZIGZAG and levels > 1 and not _level_by_level(layout, grid):
            raise ValueError(
                f"mixer {mixer}: path {path} needs one level, or the order levels, found {levels} levels in "
                "another order"
            )


def sequence(path: str, steps, coords, grid: Grid):
    """The rows in the sequence in which a path visits them.

    Args:
      path: its name.
      steps: int [N] or [B, N]: the rows' steps.
      coords: int [N, A] or [B, N, A]: where they lie, ([frame,] row, column); negative for nowhere.
      grid: the slots.

    Returns:
      int [N] or [B, N], a permutation: NumPy where `steps` and `coords` are, or where no step has two rows.
    """
    if steps.shape[-1] == 1 or (static.known(steps) and np.all(np.diff(steps) > 0)):
        return np.arange(steps.shape[-1])
    module = static.module(steps, coords)
    steps, coords = module.asarray(steps), module.asarray(coords)
    # On a grid of several levels a step is a level (`check_paths`); elsewhere there is one level.
    level = module.minimum(steps, len(grid.levels) - 1)
    extent = module.asarray(np.asarray(grid.levels))[level]
    placed = module.all(coords >= 0, axis=-1)
    keys = [module.where(placed, key, 0) for key in _keys(path, coords, extent, module)]
    keys = module.broadcast_arrays(steps, placed, *keys)
    return module.lexsort(tuple(reversed(keys)))


def inverse(permutation):
    """Where each row is in a sequence; NumPy where that is."""
    return static.module(permutation).argsort(permutation, axis=-1)


def take_rows(x, permutation):
    """x [B, N, D] at rows [N] or [B, N]: [B, N, D]."""
    if static.known(permutation) and np.array_equal(permutation, np.arange(x.shape[1])):
        return x
    if permutation.ndim == 1:
        return jnp.take(x, permutation, axis=1)
    return jnp.take_along_axis(x, permutation[..., None], axis=1)


def _keys(path, coords, extent, module):
    """The path's keys, the most important first."""
    row, column = coords[..., -2], coords[..., -1]
    frame = (coords[..., 0],) if coords.shape[-1] > 2 else ()
    if windows := _WINDOWS.fullmatch(path):
        size = int(windows[1])
        keys = (row // size, column // size, row % size, column % size)
        keys = (keys[1], keys[0], keys[3], keys[2]) if windows[2] else keys
    elif path in ZIGZAG:
        corner, by_columns = divmod(ZIGZAG.index(path), 2)
        row = extent[..., 0] - 1 - row if corner >= 2 else row
        column = extent[..., 1] - 1 - column if corner % 2 else column
        slow, fast = (column, row) if by_columns else (row, column)
        keys = (slow, module.where(slow % 2, -fast, fast))
    else:
        keys = (column, row) if path.startswith("columns") else (row, column)
    keys = (*frame, *keys)
    return tuple(-k for k in keys) if path.endswith("reverse") else keys


# Rows on the grid, for mixers that work in two dimensions.


def one_level(mixer: str, grid: Grid) -> None:
    """Raises ValueError for a grid of several levels."""
    if len(grid.levels) > 1:
        raise ValueError(f"mixer {mixer}: needs a grid of one level, found {len(grid.levels)} levels")


def whole_frames(layout: Layout, grid: Grid) -> bool:
    """Whether every time is one whole frame, row by row (one level)."""
    if len(grid.levels) > 1 or not _placed_alike(layout):
        return False
    # A row lies where its content does, or (in the first frame, where rows carry it from the one before) nowhere.
    places, cells = layout.coords[:, -2:], grid.coords[:, 2:]
    inside = len(places) == grid.size and bool(np.all((places == cells) | (places < 0)))
    return inside and np.array_equal(layout.times, grid.coords[:, 1])


def is_raster(layout: Layout, grid: Grid) -> bool:
    """Whether rows come one a time in the canonical sequence of slots, each carrying the content before."""
    if not _placed_alike(layout) or len(layout.times) != grid.size:
        return False
    return layout.one_by_one and np.array_equal(layout.coords[1:], grid.places[:-1])


def _placed_alike(layout: Layout) -> bool:
    """Whether times and places are known before tracing, and the same for all examples."""
    return layout.same_for_all and static.known(layout.coords) and layout.coords.ndim == 2


def _level_by_level(layout: Layout, grid: Grid) -> bool:
    """Whether every time is a level."""
    return layout.same_for_all and np.array_equal(layout.times, grid.coords[:, 0])


def to_grid(x, coords, grid: Grid):
    """Rows [B, N, D] laid out on a grid of one level, zeros where no row lies.

    Args:
      x: [B, N, D].
      coords: int [N, A]; rows of negative coordinates lie nowhere. Several rows may not lie at one place.
      grid: the slots. In a cached form, where the rows are of one frame, pass it with `frames` 1.

    Returns:
      [B, F, H, W, D], and int [N]: the index of each row's place among F H W, which is F H W for nowhere.
    """
    (height, width), n = grid.levels[0], x.shape[1]
    size = grid.frames * height * width
    module = static.module(coords)
    index = coords[..., -2] * width + coords[..., -1]
    if grid.frames > 1 and coords.shape[-1] > 2:
        index = index + coords[..., 0] * height * width
    index = module.where(module.all(coords >= 0, axis=-1), index, size)
    if module is np:
        rows = np.full(size + 1, n)
        rows[index] = np.arange(n)
    else:
        rows = jnp.full(size + 1, n).at[index].set(jnp.arange(n))
    cells = jnp.take(x, rows[:size], axis=1, mode="fill", fill_value=0)
    return cells.reshape(x.shape[0], grid.frames, height, width, x.shape[-1]), index


def by_places(place, cache, rows, coords):
    """Rows one at a time in raster order, for mixers whose places hear the one above and the one to the left.

    Args:
      place: (above, left, row, at) -> (what goes down, what goes right, y), at one place.
      cache: "above" [B, W, ...], what every column has sent down, and "left" [B, ...]; zero around a frame.
      rows: a tree of arrays [B, N, ...].
      coords: int [N, A]; a row of negative coordinates changes nothing and reads zeros.

    Returns:
      y [B, N, ...] and the new cache.
    """

    def body(cache, xs):
        row, at = xs
        placed, column = jnp.all(at >= 0), jnp.maximum(at[-1], 0)
        above = jnp.where(jnp.all(at[-2:] == 0), 0.0, cache["above"])
        left = jnp.where(at[-1] == 0, 0.0, cache["left"])
        down, right, y = place(above[:, column], left, row, at)
        new = {"above": above.at[:, column].set(down), "left": right}
        return jax.tree.map(lambda new, old: jnp.where(placed, new, old), new, cache), jnp.where(
            placed, y, 0.0
        )

    rows = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), rows)
    cache, y = jax.lax.scan(body, cache, (rows, jnp.asarray(coords)))
    return jnp.moveaxis(y, 0, 1), cache


def from_grid(cells, index, elsewhere=0.0):
    """The way back: cells [B, F, H, W, D] at `index` [N]; `elsewhere` ([B, N, D]) for rows that lie nowhere."""
    flat = cells.reshape(cells.shape[0], -1, cells.shape[-1])
    found = jnp.take(flat, index, axis=1, mode="clip")
    return jnp.where(jnp.asarray(index < flat.shape[1])[:, None], found, elsewhere)
