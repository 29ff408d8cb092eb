"""Mamba and its relatives: selective scans of the rows along one or several paths."""

from __future__ import annotations

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.layers import Dense, Norm, logical
from vargen.layout import Layout
from vargen.limits import SIZE, Between, OneOf
from vargen.mixers.paths import check_paths, inverse, sequence, take_rows
from vargen.mixers.place_conv import place_conv
from vargen.mixers.recurrent import nothing_hidden
from vargen.mixers.selective_scan import selective_scan
from vargen.mixers.short_conv import short_conv
from vargen.mixers.ssm_init import dt_bias_init, each, log_a_init, uniform
from vargen.slots import Grid

CONV_2D = 3


class Mamba(nn.Module):
    """out(silu(z) * sum over paths of scan(silu(conv(x)))), x and z linear in the input (arXiv 2312.00752, 3.4).

    Each path (vargen/mixers/paths.py) has its own convolution, projections, decays and skip, and its own state:
    with ("forward", "reverse") Vim's bidirectional block (arXiv 2401.09417, its code's v2), with four VMamba's
    cross-scan (arXiv 2401.10166), with windows LocalMamba's (arXiv 2403.09338, without its search over paths and
    its attention over them). With `alternate` a layer has one path, the next layer the next one (ZigMa, arXiv
    2403.13802).

    Attributes:
      width: D, size of input and output.
      kernel_init, out_init: kernel initialisers; the scan's own parameters begin as in the authors' code.
      grid: the slots, which paths other than "forward" and `conv` "2d" look at.
      paths: names of paths.
      alternate: layer l scans along path l mod P alone, instead of along all of them.
      expand: C / D, inner channels per channel.
      state: S, states per inner channel.
      rank: rank of the map to the step sizes (0: D / 16, rounded up).
      conv: "1d", the causal depthwise convolution along each path; "2d", one depthwise 3 x 3 convolution
        over the places of each step's rows before all paths (VMamba).
      conv_width: rows that the convolution along a path sees, itself included.
      out_norm: layer normalisation of the paths' sum, before the gate (VMamba).
      dtype: compute dtype; convolution, step sizes and scan are float32 inside.
    """

    width: int
    kernel_init: Any
    out_init: Any
    grid: Grid = Grid(((1, 1),))
    paths: tuple[str, ...] = ("forward",)
    alternate: bool = False
    expand: Annotated[int, Between(1, 64)] = 2
    state: Annotated[int, SIZE] = 16
    rank: Annotated[int, Between(0, 2**20)] = 0
    conv: Annotated[str, OneOf("1d", "2d")] = "1d"
    conv_width: Annotated[int, Between(1, 64)] = 4
    out_norm: bool = False
    dtype: Any = jnp.float32

    keeps_rows = False
    reads_ahead = False

    @property
    def inner(self) -> int:
        return self.expand * self.width

    @property
    def _sets(self) -> int:
        """P, sets of parameters and states."""
        return 1 if self.alternate else len(self.paths)

    def check(self, layout) -> None:
        """Raises ValueError for options that don't exist, and for an order that they can't honour."""
        nothing_hidden("mamba", layout)
        check_paths("mamba", self.paths, self.grid, layout)

    def init_cache(self, batch: int, length: int) -> dict[str, jax.Array]:
        """Before the first row: states [B, P, C, S] and the convolutions' last rows [B, P, W-1, C]."""
        cache = {"state": jnp.zeros((batch, self._sets, self.inner, self.state), jnp.float32)}
        if self.conv == "1d":
            cache["tail"] = jnp.zeros((batch, self._sets, self.conv_width - 1, self.inner), self.dtype)
        return cache

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """Mixes rows.

        Args:
          x: [B, N, D].
          layout: steps and places of the rows, and the layer (`alternate`).
          cache: None (parallel form), or what the rows of all earlier steps left.
          train: unused.

        Returns:
          [B, N, D], and the new cache (None in the parallel form).
        """
        u = Dense(self.inner, ("embed", "mlp"), self.kernel_init, False, self.dtype, name="in")(x)
        gate = Dense(self.inner, ("embed", "mlp"), self.kernel_init, False, self.dtype, name="gate")(x)
        if self.conv == "2d":
            u = nn.silu(self._conv_2d(u, layout))
        sequences = self._sequences(layout)
        before = self.init_cache(len(x), 0) if cache is None else cache
        parameters, y, after = self._parameters(), 0.0, []
        for i, (there, back) in enumerate(sequences):
            # One after another: mapped together, their states are too many for a processor's cache.
            of_path = jax.tree.map(lambda p, i=i: p[i], parameters)
            scanned, new = self._scan(
                of_path, take_rows(u, there), jax.tree.map(lambda c, i=i: c[:, i], before)
            )
            y = y + take_rows(scanned, back)
            after.append(new)
        if self.out_norm:
            y = Norm(name="norm")(y)
        y = y.astype(self.dtype) * nn.silu(gate)
        y = Dense(self.width, ("mlp", "embed"), self.out_init, False, self.dtype, name="out")(y)
        return y, None if cache is None else jax.tree.map(lambda *c: jnp.stack(c, axis=1), *after)

    def _parameters(self) -> dict[str, jax.Array]:
        """One set for each path, [P, ...]."""
        inner, states, width = self.inner, self.state, self.conv_width
        rank = self.rank or math.ceil(self.width / 16)
        shapes = {
            "x_kernel": (self.kernel_init, ("mlp", None), (inner, rank + 2 * states)),
            "dt_kernel": (uniform(rank), (None, "mlp"), (rank, inner)),
            "dt_bias": (dt_bias_init, ("mlp",), (inner,)),
            "log_a": (log_a_init, ("mlp", None), (inner, states)),
            "d": (nn.initializers.ones, ("mlp",), (inner,)),
        }
        if self.conv == "1d":
            shapes["conv_kernel"] = (uniform(width), (None, "mlp"), (width, inner))
            shapes["conv_bias"] = (uniform(width), ("mlp",), (inner,))
        return {
            name: self.param(name, logical(each(init), None, *names), (self._sets, *shape))
            for name, (init, names, shape) in shapes.items()
        }

    def _scan(self, p, x, cache):
        """One path: its parameters, its rows [B, N, C] in its sequence, and its part of the cache."""
        new = {}
        if self.conv == "1d":
            x, new["tail"] = short_conv(x, p["conv_kernel"], p["conv_bias"], cache["tail"])
            x = nn.silu(x)
        dt, b, c = jnp.split(
            x @ p["x_kernel"].astype(self.dtype), [len(p["dt_kernel"]), len(p["dt_kernel"]) + self.state], -1
        )
        dt = nn.softplus((dt @ p["dt_kernel"].astype(self.dtype)).astype(jnp.float32) + p["dt_bias"])
        y, new["state"] = selective_scan(x, dt, -jnp.exp(p["log_a"]), b, c, p["d"], cache["state"])
        return y, new

    def _sequences(self, layout: Layout):
        """For each set of parameters the rows in its path's sequence, and the way back."""
        there = [sequence(path, layout.times, layout.coords, self.grid) for path in self.paths]
        both = [(rows, inverse(rows)) for rows in there]
        if not self.alternate:
            return both
        if static.known(layout.layer):
            return [both[layout.layer % len(both)]]
        if static.known(*there) and all(np.array_equal(rows, there[0]) for rows in there):
            return both[:1]
        # Under a scan over layers the layer is traced: all paths are kept, and one taken.
        return [
            tuple(
                jnp.take(jnp.stack(rows), layout.layer % len(both), axis=0)
                for rows in zip(*both, strict=True)
            )
        ]

    def _conv_2d(self, u, layout):
        init, shape = uniform(CONV_2D**2), (CONV_2D, CONV_2D, self.inner)
        kernel = self.param("grid_kernel", logical(init, None, None, "mlp"), shape)
        bias = self.param("grid_bias", logical(init, "mlp"), (self.inner,))
        return place_conv(u, kernel, bias, layout)
