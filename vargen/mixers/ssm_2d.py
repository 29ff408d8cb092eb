"""A two-dimensional state-space layer (Baron, Zimerman & Wolf, arXiv 2306.06635)."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.layers import logical
from vargen.layout import Layout
from vargen.limits import COUNT, SIZE, OneOf
from vargen.mixers.paths import by_places, from_grid, is_raster, one_level, to_grid, whole_frames
from vargen.mixers.primitives import linear_scan
from vargen.mixers.rollback import not_taken_back
from vargen.slots import Grid

# Axes of the frame turned round: the corner from which a direction starts.
CORNERS = {1: ((),), 2: ((), (0, 1)), 4: ((), (0,), (1,), (0, 1))}


class SSM2D(nn.Module):
    """A horizontal and a vertical state at every place, each fed by both of its neighbour; D inputs side by side.

        x^h[i,j] = A1 x^h[i,j-1] + A2 x^v[i,j-1] + B1 u[i,j]
        x^v[i,j] = A3 x^h[i-1,j] + A4 x^v[i-1,j] + B2 u[i,j]
        y[i,j]   = C1 x^h[i,j] + C2 x^v[i,j] + omega u[i,j]

    S diagonal states for each channel, A and B within (0, 1), C over sqrt(S). As in the authors' code, a
    state that both of its neighbour's feed takes their mean instead of their sum, so that it stays bounded: an
    input's effect along its own row or column, where one alone arrives after the first step, keeps its size, and
    inside, where both do, is halved at every step.

    One direction, from the top left, is causal in raster order. Two (from opposite corners) and four (from all)
    see the whole frame. Rows that lie nowhere pass by with the skip alone. It doesn't mix channels: the authors
    place it before a block's attention.

    Attributes:
      width: D, size of input and output.
      grid: the slots, one level.
      directions: 1, 2 or 4; the directions share A and B, and have a C each.
      state: S, states of each kind per channel.
      sets: A and B are shared by all channels of equal remainder modulo `sets` (0: none are shared).
      dtype: dtype of the result; all is float32 inside.
    """

    width: int
    grid: Grid
    directions: Annotated[int, OneOf(1, 2, 4)] = 1
    state: Annotated[int, SIZE] = 16
    sets: Annotated[int, COUNT] = 4
    dtype: Any = jnp.float32

    keeps_rows = False
    reads_ahead = False

    def check(self, layout) -> None:
        """Raises ValueError for options that don't exist, and for an order that the directions can't honour."""
        check_grid_order("ssm_2d", self.grid, layout, self.directions == 1)

    def init_cache(self, batch: int, length: int) -> dict[str, jax.Array]:
        """What has arrived before the first row: from above [B, W, 2, D, S], from the left [B, 2, D, S].

        Several directions need whole frames in every step, and remember nothing.
        """
        if self.directions > 1:
            return {}
        shape = (2, self.width, self.state)
        width = self.grid.levels[0][1]
        return {"above": jnp.zeros((batch, width, *shape)), "left": jnp.zeros((batch, *shape))}

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """Mixes rows.

        Args:
          x: [B, N, D].
          layout: where the rows lie: coords [N, A].
          cache: None (parallel form), or what the rows of all earlier steps left.
          train: unused.

        Returns:
          [B, N, D], and the new cache (None in the parallel form).
        """
        sets = self.sets or self.width
        shape, names = (sets, self.state), (None, None, None)
        a = self.param("a", logical(nn.initializers.normal(0.2), *names), (4, *shape))
        b = self.param("b", logical(nn.initializers.normal(0.2), *names), (2, *shape))
        init = logical(nn.initializers.normal(1.0), None, None, "embed", None)
        c = self.param("c", init, (self.directions, 2, self.width, self.state)) / math.sqrt(self.state)
        skip = self.param("omega", logical(nn.initializers.normal(1.0), "embed"), (self.width,))
        of = np.arange(self.width) % sets
        a, b = nn.sigmoid(a)[:, of], nn.sigmoid(b)[:, of]
        u = x.astype(jnp.float32)
        if cache is not None and self.directions == 1:
            y, cache = by_rows(u, layout.coords, cache, a, b, c[0])
        else:
            grid = dataclasses.replace(self.grid, frames=1) if cache is not None else self.grid
            cells, index = to_grid(u, layout.coords, grid)
            y = from_grid(self._directions(cells, a, b, c), index)
        return (y + skip * u).astype(self.dtype), cache

    def _directions(self, cells, a, b, c):
        """The sum over directions on [B, F, H, W, D]."""
        corners = [tuple(axis + 2 for axis in axes) for axes in CORNERS[self.directions]]
        frames = jnp.stack([jnp.flip(cells, axes) for axes in corners])
        frames = frames.reshape(len(corners), -1, *cells.shape[2:])
        y = jax.vmap(scan_2d, in_axes=(0, None, None, 0))(frames, a, b, c)
        y = y.reshape(len(corners), *cells.shape)
        return sum(jnp.flip(y[i], axes) for i, axes in enumerate(corners))


def check_grid_order(mixer: str, grid: Grid, layout: Layout, causal: bool) -> None:
    """Raises ValueError unless rows fill frames of one level, a frame or (where causal) a slot at a time."""
    one_level(mixer, grid)
    not_taken_back(mixer, layout)
    if layout.everyone or whole_frames(layout, grid) or (causal and is_raster(layout, grid)):
        return
    expected = "the order raster or whole frames" if causal else "whole frames"
    raise ValueError(
        f"mixer {mixer}: needs {expected} in every step, or rows that all see each other, found another order"
    )


def scan_2d(u, a, b, c) -> jax.Array:
    """The layer from the top left, without its skip: frame rows one after another, each in one linear scan.

    Args:
      u: float32 [B, H, W, D].
      a: [4, D, S], b: [2, D, S], c: [2, D, S]: A1 to A4, B1 and B2, C1 and C2.

    Returns:
      float32 [B, H, W, D].
    """
    along, across, read = _equations(a, b, c)

    @jax.checkpoint
    def row(above, u):
        drive = jnp.pad(across(u, above, 0), ((0, 0), (1, 0)) + ((0, 0),) * 3)[:, :-1]
        left = linear_scan(along[0], drive, axis=1)
        return along[1] * above + across(u, left, 1), read(u, left, above)

    above = jnp.zeros((u.shape[0], u.shape[2], 2, *a.shape[1:]), jnp.float32)
    return jnp.moveaxis(jax.lax.scan(row, above, jnp.moveaxis(u, 1, 0))[1], 0, 1)


def by_rows(u, coords, cache, a, b, c):
    """`scan_2d` one place at a time, in raster order.

    Args:
      u: float32 [B, N, D].
      coords: int [N, A]; a row of negative coordinates changes nothing and reads nothing.
      cache: what `SSM2D.init_cache` says.
      a, b, c: as for `scan_2d`.

    Returns:
      float32 [B, N, D], and the new cache.
    """
    along, across, read = _equations(a, b, c)

    def place(above, left, u, at):
        down, right = along[1] * above + across(u, left, 1), along[0] * left + across(u, above, 0)
        return down, right, read(u, left, above)

    return by_places(place, cache, u, coords)


def _equations(a, b, c):
    """What travels right ("left", on its arrival) and down ("above"), each in two parts [..., 2, D, S]: what has
    come straight from its input, at half its size, and what has turned.

    Returns:
      along: for both, what each part is multiplied with from place to place.
      across(u, other, kind): what a place adds to what travels right (kind 0) or down (kind 1).
      read(u, left, above): y.
    """
    part = jnp.array([1.0, 0.5])[:, None, None]
    along = (part * a[0], part * a[3])
    gain = ((a[0] * b[0] + a[1] * b[1]) / 2, (a[2] * b[0] + a[3] * b[1]) / 2)

    def across(u, other, kind):
        straight, turned = other[..., 0, :, :], other[..., 1, :, :]
        return jnp.stack([gain[kind] * u[..., None], a[1 + kind] * (straight + turned / 2)], axis=-3)

    def read(u, left, above):
        states = (
            b[i] * u[..., None] + 2 * x[..., 0, :, :] + x[..., 1, :, :] for i, x in enumerate((left, above))
        )
        return jnp.sum(sum(c[i] * x for i, x in enumerate(states)), axis=-1)

    return along, across, read
