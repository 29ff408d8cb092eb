"""The refine feed: each level's rows carry the image so far, resampled to that level (VAR, arXiv 2404.02905)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.content import repeat_to, take
from vargen.feeds.feed import Plain
from vargen.feeds.rows import Content, Rows, Step
from vargen.layers import Dense, Embed, Initial, Norm, logical
from vargen.layout import Layout
from vargen.limits import Between, OneOf
from vargen.orders import Order
from vargen.slots import Grid, Slot
from vargen.tokenizers import resample
from vargen.tokenizers.tokenizer import Leveled


class Refine(Plain, nn.Module):
    """Level s is predicted from the latents that levels before s add up to; level 0 from the condition.

    Positions are embeddings, one of each slot and one of each level (VAR), or of each level alone where rotary
    positions tell the rest (HART, arXiv 2410.10812); or a table over the picture, averaged to each level, so that no
    parameter depends on the levels (FlexVAR, arXiv 2502.20313).

    Attributes:
      tokenizer: a tokenizer with levels: its `start`, `absorb` and `resample` (pure functions).
      grid: the slots, of which a level is a step.
      width: D.
      initial: of the parameters.
      places: what tells a row its place: "slots", embeddings of its slot and of its level; "slots_alone" or "levels",
        of one of them; or "table".
      side: of the table.
      coords: where rows lie for rotary positions: "level", in rows and columns of their own level; "picture", in those
        of the last one (FlowAR, arXiv 2412.15205).
      encoder_decoder: two stages, with a product and further embeddings of the slots between them and behind them
        (FlowAR, official code).
      past: whether rows see those of earlier levels; else of these the image so far is all that they know, and nothing
        is cached (HMAR, arXiv 2506.04421).
      level_weights: how much the loss counts levels: every slot "even"; or each level by HMAR's "lognorm" (`lognorm`).
      dtype: compute dtype.
    """

    tokenizer: Any
    grid: Grid
    width: int
    initial: Initial
    places: Annotated[str, OneOf("slots", "slots_alone", "levels", "table")] = "slots"
    side: Annotated[int, Between(1, 1024)] = 32
    coords: Annotated[str, OneOf("level", "picture")] = "level"
    encoder_decoder: bool = False
    past: bool = True
    level_weights: Annotated[str, OneOf("even", "lognorm")] = "even"
    dtype: Any = jnp.float32

    called = "refine"  # in messages
    cached = True
    loops = False
    takes_partial = True

    @property
    def stages(self):
        """The names of the stages."""
        return ("encoder", "decoder") if self.encoder_decoder else ("blocks",)

    @property
    def length(self) -> int:
        """Rows in all that stay."""
        return self.grid.size if self.past else 0

    @property
    def emphasis(self) -> np.ndarray | None:
        """See `level_weights`."""
        if self.level_weights == "even":
            return None
        return (
            lognorm(self.grid)[self.grid.coords[:, 0]]
            / np.asarray(self.grid.level_sizes)[self.grid.coords[:, 0]]
        )

    @functools.cached_property
    def lie(self) -> np.ndarray:
        """[N, 2]: where slots lie, see `coords`; whole numbers where they come out so."""
        if self.coords == "level":
            return self.grid.places
        level = self.grid.coords[:, 0]
        scale = np.asarray(self.grid.levels[-1]) / np.asarray(self.grid.levels)[level]
        found = self.grid.coords[:, 2:] * scale
        whole = found.round().astype(np.int32)
        return whole if np.array_equal(whole, found) else found.astype(np.float32)

    def alike(self, step: Step) -> Any:
        """No two: every level has arithmetic of its own."""
        return step.index

    def prefill(self, steps: list[Step]) -> list[Step]:
        """Each level by itself."""
        return steps

    def check(self, ordering) -> None:
        """Raises ValueError for an order whose steps are not the levels, or a tokenizer without them."""
        if not isinstance(self.tokenizer, Leveled):
            raise ValueError(
                f"feed {self.called}: needs a tokenizer with levels, such as multiscale_vq, and an order such as "
                "levels, found none"
            )
        self._check_order(ordering)
        if self.coords == "picture" and self.grid.frames > 1:
            raise ValueError("config field feed.coords: expected level for a grid of frames, found picture")
        if self.encoder_decoder and self.places in ("levels", "table"):
            raise ValueError(
                f"config field feed.encoder_decoder: needs embeddings of slots, found feed.places {self.places}"
            )
        if self.places == "table" and self.width % 2:
            raise ValueError(
                f"config field model.width: expected an even number for feed.places table, found {self.width}"
            )

    def _check_order(self, ordering) -> None:
        drawn = ordering.random_decoding or (ordering.random and not ordering.partial)
        fixed = None if drawn else ordering.decoding(None, 1)
        if fixed is None or not np.array_equal(fixed.steps, self.grid.coords[:, 0]):
            raise ValueError(f"feed {self.called}: needs the order levels")
        if ordering.partial and not ordering.thins and not self.tokenizer.independent:
            raise ValueError(
                f"feed {self.called}: levels that are drawn need a tokenizer whose levels are independent, such as "
                "pyramid_vq, found one whose aren't"
            )

    def setup(self):
        init = self.initial.table()
        self.content = Content(Slot((self.tokenizer.channels,)), self.width, self.initial, dtype=self.dtype)
        if self.places in ("slots", "levels"):
            self.levels = Embed(len(self.grid.levels), self.width, init, dtype=self.dtype)
        if self.places == "table":
            self.table = self.param(
                "positions", logical(waves, None, None, "embed"), (self.side, self.side, self.width)
            )
        elif self.places != "levels":
            self.positions = Embed(self.grid.size, self.width, init, dtype=self.dtype)
        if self.places != "slots_alone":
            first = 1 if self.places == "table" else self.grid.level_sizes[0]
            self.first = self.param("first", logical(init, None, "embed"), (first, self.width))
        if self.encoder_decoder:
            kernel = self.initial.kernel()
            self.content_norm = Norm("rms")
            self.bridge = Dense(self.width, ("embed", "mlp"), kernel, dtype=self.dtype)
            self.decoder_positions = Embed(self.grid.size, self.width, init, dtype=self.dtype)
            self.targets = Embed(self.grid.size, self.width, init, dtype=self.dtype)

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass; of the condition the vector is used; see `Feed.inputs`."""
        thinned = order.exists is not None and order.slots.ndim == 2
        if order.exists is not None and not thinned:
            return self._some(content, condition, order, quantizer)
        batch = content.shape[0]
        state, latents = self.begin(batch), [jnp.zeros((batch, 0, self.tokenizer.channels))]
        for level in range(1, len(self.grid.levels)):
            state = self._absorb(state, content, level - 1, quantizer)
            latents.append(self.tokenizer.resample(state, level))
        rows = self.rows_from_latents(jnp.concatenate(latents, axis=1), condition)
        return self._thinned(rows, order) if thinned else rows

    def rows_from_latents(self, latents, condition) -> Rows:
        """Rows of a whole pass, where what the content adds up to is known already.

        Args:
          latents: float32 [B, N - n_0, C]: the image so far, resampled to every level after the first.
          condition: as of `inputs`.
        """
        slots, coords = np.arange(self.grid.size), self.grid.coords
        x = jnp.concatenate([self._first(condition), self.content(latents)], axis=1)
        layout = Layout(coords[:, 0], self.lie, window=None if self.past else 0)
        return Rows(self._placed(x, slots), layout, slots)

    def begin(self, batch: int):
        """The image so far: latents of zeros [B, h, w, C]."""
        return self.tokenizer.start(batch)

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of a step's level; the condition may hold several for each example."""
        slots, level, coords = step.at(), self._level(step), self.grid.coords
        if level == 0:
            x = self._first(condition)
        else:
            x = repeat_to(self.content(self.tokenizer.resample(state, level)), condition.vector.shape[0])
        if self.past:
            # Nothing comes after the last level, of which nothing need stay.
            keep = 0 if step.start + step.size == self.grid.size else None
            layout = Layout(coords[slots, 0], self.lie[slots], step.start, coords[:, 0], keep=keep)
        else:
            layout = Layout(coords[slots, 0], self.lie[slots], 0, keep=0, window=0)
        return Rows(self._placed(x, slots), layout, slots)

    def absorb(self, state, content, step: Step, quantizer=None):
        """The image so far with the step's level of `content` [B, N] added."""
        return self._absorb(state, content, self._level(step), quantizer)

    def enter(self, stage: int, hidden, rows: Rows, cache=None):
        """Rows of the decoder from the encoder's results [B, M, D]."""
        x = self.bridge(hidden) + self.decoder_positions(rows.slots)
        return dataclasses.replace(rows, x=x), cache

    def outputs(self, hidden, rows: Rows):
        """[B, M, D] -> [B, N, D]: every row predicts."""
        return hidden + self.targets(rows.slots) if self.encoder_decoder else hidden

    def _level(self, step: Step) -> int:
        return int(self.grid.coords[step.start, 0])

    def _absorb(self, state, content, level, quantizer):
        start, size = self.grid.level_starts[level], self.grid.level_sizes[level]
        return self.tokenizer.absorb(quantizer, state, content[:, start : start + size], level)

    def _thinned(self, rows: Rows, order: Order) -> Rows:
        """Of rows of all slots those of an order's slots [B, M], which has every level but for a part of the last."""
        # Rows that don't exist come later than all others, which don't see them.
        layout = dataclasses.replace(
            rows.layout, times=order.steps, coords=jnp.asarray(self.lie)[order.slots]
        )
        weight = order.exists.astype(jnp.float32)
        return Rows(take(rows.x, order.slots), layout, order.slots, weight)

    def _some(self, content, condition, order: Order, quantizer) -> Rows:
        """Rows of a whole pass over levels that are known only when traced."""
        count, level = len(self.grid.levels), self.grid.coords[:, 0]
        level = jnp.asarray(level)[order.slots]
        there = jnp.zeros(count, bool).at[level].max(order.exists)
        latest = jax.lax.cummax(jnp.where(there, np.arange(count), -1))
        before = jnp.concatenate([jnp.full(1, -1), latest[:-1]])
        latents = take(self.tokenizer.rows(quantizer, content, before), order.slots)
        first = condition.vector[:, None].astype(self.dtype)
        if self.places != "slots_alone":
            # The first rows are the first level's: its slots in their sequence, of which a table's are alike.
            own = self.first[np.minimum(np.arange(order.slots.shape[0]), len(self.first) - 1)]
            first = first + own.astype(self.dtype)
        x = jnp.where((before[level] < 0)[:, None], first, self.content(latents))
        # Rows that don't exist come later than all others, which don't see them.
        times = jnp.where(order.exists, level, count)
        weight = jnp.broadcast_to(order.exists.astype(jnp.float32), x.shape[:2])
        places = jnp.asarray(self.lie)[order.slots]
        layout = Layout(times, places, window=None if self.past else 0)
        return Rows(self._placed(x, order.slots), layout, order.slots, weight)

    def _first(self, condition):
        x = condition.vector[:, None].astype(self.dtype)
        x = x if self.places == "slots_alone" else x + self.first.astype(self.dtype)
        return jnp.broadcast_to(x, (len(x), self.grid.level_sizes[0], self.width))

    def _placed(self, x, slots):
        """Rows [B, n, D] of slots int [n], with their levels and positions added."""
        if self.places != "table":
            if self.places != "levels":
                x = x + self.positions(slots)
            if self.places != "slots_alone":
                x = x + self.levels(jnp.asarray(self.grid.coords)[slots, 0])
            return self.content_norm(x) if self.encoder_decoder else x
        averages = [resample.area(self.table[None], size) for size in self.grid.levels]
        table = jnp.concatenate([a.reshape(-1, self.width) for a in averages])
        return x + table[slots].astype(x.dtype)


def waves(key, shape, dtype=jnp.float32):
    """Where the table starts (FlexVAR, official code): float32 [S, S, D], of which the key is not used.

    Channel 2i at (y, x) is sin(y w_i), channel 2i + 1 is cos(x w_i), with w_i = 10000^(-2i / D).
    """
    side, _, width = shape
    angles = np.arange(side)[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    table = np.zeros(shape)
    table[..., 0::2], table[..., 1::2] = np.sin(angles)[:, None], np.cos(angles)[None]
    return jnp.asarray(table, dtype)


def lognorm(grid: Grid) -> np.ndarray:
    """float32 [L]: the weight of each level in the loss (HMAR, official code, whose name it has); they add up to 1.

    The normal density at (x_{L+1-k} - m) / s, of which x_k is the side of level k over that of the last, m and s their
    mean and sample deviation.
    """
    x = np.sqrt(np.asarray(grid.level_sizes, np.float64) / grid.level_sizes[-1])
    deviation = np.std(x, ddof=1) if len(x) > 1 and np.std(x) else 1.0
    weights = np.exp(-(((x[::-1] - np.mean(x)) / deviation) ** 2) / 2)
    return (weights / np.sum(weights)).astype(np.float32)
