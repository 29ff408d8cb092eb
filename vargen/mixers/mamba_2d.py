"""Mamba2D: one selective scan of a frame along both of its axes (arXiv 2412.16146)."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import Dense, logical
from vargen.layout import Layout
from vargen.limits import SIZE, Between, OneOf
from vargen.mixers.paths import by_places, from_grid, to_grid
from vargen.mixers.primitives import linear_scan
from vargen.mixers.ssm_2d import check_grid_order
from vargen.mixers.ssm_init import dt_bias_init, each, log_a_init, uniform
from vargen.slots import Grid


class Mamba2D(nn.Module):
    """out(gelu(scan(gelu(in(x))))), where the state of a place continues those above and to its left.

    h[i,j] = mean of exp(dt_T A_T) h[i-1,j] + dt_T B_T x and exp(dt_L A_L) h[i,j-1] + dt_L B_L x, with step sizes
    dt, B and C linear in the place's input; in the first row the second alone, in the first column below it the
    first. y = C h + D x.

    One direction, from the top left, is causal in raster order; two (from opposite corners, each with parameters
    of its own, averaged) see the whole frame. Rows that lie nowhere pass by the scan with the skip D alone. The
    authors' optional local convolutions are left out.

    Attributes:
      width: D, size of input and output.
      grid: the slots, one level.
      kernel_init, out_init: kernel initialisers; the scan's own parameters begin as in the authors' code.
      directions: 1 or 2.
      expand: C / D, inner channels per channel.
      state: S, states per inner channel.
      rank: rank of the maps to the step sizes (0: D / 16, rounded up).
      dtype: compute dtype; step sizes and scan are float32 inside.
    """

    width: int
    grid: Grid
    kernel_init: Any
    out_init: Any
    directions: Annotated[int, OneOf(1, 2)] = 1
    expand: Annotated[int, Between(1, 64)] = 1
    state: Annotated[int, SIZE] = 16
    rank: Annotated[int, Between(0, 2**20)] = 0
    dtype: Any = jnp.float32

    keeps_rows = False
    reads_ahead = False

    @property
    def inner(self) -> int:
        return self.expand * self.width

    def check(self, layout) -> None:
        """Raises ValueError for options that don't exist, and for an order that the directions can't honour."""
        check_grid_order("mamba_2d", self.grid, layout, self.directions == 1)

    def init_cache(self, batch: int, length: int) -> dict[str, jax.Array]:
        """Before the first row: the states of the row above [B, W, C, S], and to the left [B, C, S].

        Two directions need whole frames in every step, and remember nothing.
        """
        if self.directions > 1:
            return {}
        shape = (self.inner, self.state)
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
        u = nn.gelu(
            Dense(self.inner, ("embed", "mlp"), self.kernel_init, dtype=self.dtype, name="in")(x),
            approximate=False,
        )
        scans, wide = self._parameters(), u.astype(jnp.float32)
        if cache is not None and self.directions == 1:
            inputs = self._inputs(jax.tree.map(lambda p: p[0], scans), u)
            y, cache = by_rows(inputs, layout.coords, cache, -jnp.exp(scans["log_a"][0]))
        else:
            grid = dataclasses.replace(self.grid, frames=1) if cache is not None else self.grid
            cells, index = to_grid(u, layout.coords, grid)
            turned = jnp.stack([cells, jnp.flip(cells, (2, 3))][: self.directions])

            def scan(p, cells):
                frames = cells.reshape(-1, *cells.shape[2:])
                return scan_2d(self._inputs(p, frames), -jnp.exp(p["log_a"])).reshape(cells.shape)

            y = jax.vmap(scan)(scans, turned)
            y = y[0] if self.directions == 1 else (y[0] + jnp.flip(y[1], (2, 3))) / 2
            y = from_grid(y, index)
        y = y + jnp.mean(scans["d"], axis=0) * wide
        y = nn.gelu(y.astype(self.dtype), approximate=False)
        return Dense(self.width, ("mlp", "embed"), self.out_init, dtype=self.dtype, name="out")(y), cache

    def _parameters(self) -> dict[str, jax.Array]:
        """One set for each direction; in pairs, first what concerns the place above, then that to the left."""
        inner, states = self.inner, self.state
        rank = self.rank or math.ceil(self.width / 16)
        shapes = {
            "x_kernel": (self.kernel_init, ("mlp", None), (inner, 2 * rank + 3 * states)),
            "dt_kernel": (each(uniform(rank)), (None, None, "mlp"), (2, rank, inner)),
            "dt_bias": (dt_bias_init, (None, "mlp"), (2, inner)),
            "log_a": (each(log_a_init), (None, "mlp", None), (2, inner, states)),
            "d": (nn.initializers.ones, ("mlp",), (inner,)),
        }
        return {
            name: self.param(name, logical(each(init), None, *names), (self.directions, *shape))
            for name, (init, names, shape) in shapes.items()
        }

    def _inputs(self, p, x):
        """x [..., C] to float32 x, dt [..., 2, C], B [..., 2, S] and C [..., S]."""
        rank, states = p["dt_kernel"].shape[1], self.state
        dt, b, c = jnp.split(x @ p["x_kernel"].astype(self.dtype), [2 * rank, 2 * (rank + states)], axis=-1)
        dt = dt.reshape(*dt.shape[:-1], 2, rank)
        dt = jnp.einsum("...kr,krc->...kc", dt, p["dt_kernel"].astype(self.dtype))
        dt = nn.softplus(dt.astype(jnp.float32) + p["dt_bias"])
        b = b.astype(jnp.float32).reshape(*b.shape[:-1], 2, states)
        return x.astype(jnp.float32), dt, b, c.astype(jnp.float32)


def scan_2d(inputs, a) -> jax.Array:
    """C h over frames, without the skip: rows one after another, each in one linear scan.

    Args:
      inputs: x [B, H, W, C], dt [B, H, W, 2, C], B [B, H, W, 2, S] and C [B, H, W, S], float32.
      a: [2, C, S], negative: A_T and A_L.

    Returns:
      float32 [B, H, W, C].
    """
    batch, height, width, channels = inputs[0].shape

    @jax.checkpoint
    def row(above, xs):
        first, x, dt, b, c = xs
        weights = _weights(first, jnp.arange(width) == 0)
        decays, drive = _step(x, dt, b, a, weights)
        h = linear_scan(decays[1], decays[0] * above + drive, axis=1)
        return h, jnp.sum(h * c[..., None, :], axis=-1)

    above = jnp.zeros((batch, width, channels, a.shape[-1]), jnp.float32)
    xs = (jnp.arange(height) == 0, *(jnp.moveaxis(t, 1, 0) for t in inputs))
    return jnp.moveaxis(jax.lax.scan(row, above, xs)[1], 0, 1)


def by_rows(inputs, coords, cache, a):
    """`scan_2d` one place at a time, in raster order.

    Args:
      inputs: as for `scan_2d`, with N rows in the place of H W.
      coords: int [N, A]; a row of negative coordinates changes nothing and reads nothing.
      cache: what `Mamba2D.init_cache` says.
      a: as for `scan_2d`.

    Returns:
      float32 [B, N, C], and the new cache.
    """

    def place(above, left, row, at):
        x, dt, b, c = row
        decays, drive = _step(x, dt, b, a, _weights(at[-2] == 0, at[-1] == 0))
        h = decays[0] * above + decays[1] * left + drive
        return h, h, jnp.sum(h * c[:, None], axis=-1)

    return by_places(place, cache, inputs, coords)


def _weights(first_row, first_column):
    """What the terms from above and from the left count for, [..., 2]: together 1."""
    above = jnp.where(first_row, 0.0, jnp.where(first_column, 1.0, 0.5))
    return jnp.stack([above, 1.0 - above], axis=-1)


def _step(x, dt, b, a, weights):
    """The decays [..., C, S] from above and from the left, and what enters [..., C, S]."""
    weights = weights[..., None, None]
    decays = weights * jnp.exp(dt[..., None] * a)
    drive = jnp.sum(weights * dt[..., None] * b[..., None, :], axis=-3) * x[..., None]
    return (decays[..., 0, :, :], decays[..., 1, :, :]), drive
