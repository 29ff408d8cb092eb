"""What mixers with a state share: their common fields, runs of steps, and sums over every row that is visible."""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.layers import Dense
from vargen.layout import Layout
from vargen.limits import COUNT
from vargen.mixers.primitives import linear_attention


class Recurrent(nn.Module):
    """A mixer whose cache is a state of fixed size; by default causal along the rows, so that any order will do.

    Attributes:
      width: D, size of input and output.
      heads: H.
      kernel_init, out_init: kernel initialisers.
      dtype: compute dtype; states, decays and norms are float32.
    """

    width: int
    heads: Annotated[int, COUNT]
    kernel_init: Any
    out_init: Any
    dtype: Any = jnp.float32

    keeps_rows = False
    reads_ahead = False

    def check(self, layout) -> None:
        """Raises ValueError for a layout that this mixer can't honour: one that is causal along the rows honours all
        in which no row is hidden from later ones."""
        nothing_hidden(type(self).__name__.lower(), layout)

    def project(self, name: str, x, features: int, bias: bool = False, names=("embed", "heads")):
        """A dense layer: [B, N, ...] -> [B, N, features]."""
        return Dense(features, names, self.kernel_init, bias, self.dtype, name=name)(x)

    def split(self, x):
        """[B, N, H F] -> [B, N, H, F]."""
        if x.shape[-1] % self.heads:
            raise ValueError(
                f"config field mixer.heads: expected a divisor of {x.shape[-1]}, found {self.heads}"
            )
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def out(self, y, bias: bool = False):
        """The layer out of the mixer: [B, N, H, V] or [B, N, H V] -> [B, N, D]."""
        y = y.reshape(*y.shape[:2], -1).astype(self.dtype)
        return Dense(self.width, ("heads", "embed"), self.out_init, bias, self.dtype, name="out")(y)


def nothing_hidden(name: str, layout: Layout) -> None:
    """Raises ValueError for rows out of sequence, or that later ones don't see: padding, a pass's own noisy rows."""
    if not layout.forwards:
        raise ValueError(f"mixer {name}: expected rows in the sequence of their times, found others")
    if layout.hides:
        raise ValueError(
            f"mixer {name}: expected rows all of which stay visible to later ones; found padding, a memory or "
            "rows that don't stay"
        )


def needs_whole_steps(name: str, layout: Layout) -> None:
    """Raises ValueError for rows whose visibility differs per example: the sums here are over whole steps."""
    nothing_hidden(name, layout)
    if not layout.same_for_all:
        raise ValueError(
            f"mixer {name}: expected a feed whose rows see whole steps, the same for all examples; "
            "found one that hides slots per example"
        )


def runs(layout: Layout, cached: bool) -> list[tuple[int, int, bool]]:
    """Where the steps of the rows lie.

    Args:
      layout: steps known before tracing, or in the cached form traced: then all rows are of one step.
      cached: whether this is the cached form.

    Returns:
      (low, high, causal) per step; neighbouring steps of one row each are one run, marked causal: each of
      its rows sees those up to itself, where otherwise all rows of a run see each other.
    """
    steps = layout.times
    if not static.known(steps) or steps.ndim != 1:
        if cached:
            return [(0, steps.shape[-1], False)]
        raise ValueError("mixer: expected steps known before tracing, the same for all examples")
    edges = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]
    found: list[tuple[int, int, bool]] = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        single = high - low == 1
        if single and found and found[-1][2]:
            found[-1] = (found[-1][0], high, True)
        else:
            found.append((low, high, single))
    return found


def sum_visible(q, k, v, layout: Layout, state=None, scale: float = 1.0):
    """o_i = scale q_i S, S the sum of k_j v_j^T over all rows j of the own and earlier steps.

    Args:
      q, k: [B, N, H, K].
      v: [B, N, H, V].
      layout: the rows' steps; see `runs`.
      state: None (parallel form), or float32 [B, H, K, V]: S of the steps before.

    Returns:
      o [B, N, H, V] and S after the last row.
    """
    outs = []
    for low, high, causal in runs(layout, state is not None):
        o, state = linear_attention(
            *(x[:, low:high] for x in (q, k, v)),
            causal=causal,
            scale=scale,
            initial=state,
            return_state=True,
        )
        outs.append(o)
    return jnp.concatenate(outs, axis=1), state
