"""The shift feed: each row carries the content generated just before (GPT; LlamaGen, arXiv 2406.06525)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.content import repeat_to, take
from vargen.feeds.contents import embedding
from vargen.feeds.feed import Plain
from vargen.feeds.rows import Rows, Step, each, key_times, places, whole
from vargen.layers import Dropout, Embed, Initial
from vargen.layout import Layout
from vargen.limits import RATE, Above, Between
from vargen.orders import Order
from vargen.segments import Slots
from vargen.slots import Grid, Slot


def sources(steps: np.ndarray) -> np.ndarray:
    """int [N]: the position whose content is the input at each position; -1 for the condition.

    With one slot a step that is the previous position; with more, each slot's partner in the step before.
    """
    sizes = np.bincount(steps)
    starts = np.cumsum(sizes) - sizes
    offset = np.arange(len(steps)) - starts[steps]
    before = starts[steps - 1] + offset * sizes[steps - 1] // sizes[steps]
    return np.where(steps == 0, -1, before)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which rows a step has, without their values; [n] or [B, n] each, NumPy where known before tracing.

    Attributes:
      first: bool: whether a row carries the condition.
      carried: int: the slot whose content it carries, anything where `first`.
      targets: int: the slot that it predicts.
      row: int [ahead + n] or [B, n]: places in the whole pass, rows ahead among them.
      segments: int: the segment of `carried`, None where there is one.
    """

    first: Any
    carried: Any
    targets: Any
    row: Any
    segments: Any = None

    @property
    def begins(self) -> bool:
        """Whether the condition's rows come ahead."""
        return self.row.shape[-1] > self.targets.shape[-1]


class Shift(Plain, nn.Module):
    """Rows carry the contents one step late; the first step's rows carry the condition.

    Where the condition has more rows than one, all but its last come ahead of those that predict.

    Attributes:
      grid: the slots.
      slot: what one holds.
      width: D.
      initial: of the parameters.
      tokenizer: whose vectors codes may be carried as.
      prefix: P, rows of the condition.
      vectors: codes are carried as the tokenizer's vectors, through a linear map, instead of learned ones
        (RQ-Transformer, arXiv 2203.01941).
      positions: adds a learned embedding of the slot whose content a row carries, or of the condition's row.
      target_positions: adds a learned embedding of the slot to be predicted, which orders other than the
        canonical one need (RAR, arXiv 2411.00776).
      soft_codes: K of the codes as whose mixtures latents enter (`SoftCodes`); 0: a linear map of them does.
      soft_scale: factor on the latents where they are compared with these codes.
      step_condition: rows are modulated by the condition's vector plus a learned embedding of their place in the
        sequence (RAR, official code), instead of the vector alone.
      dropout: rate on the rows.
      dtype: compute dtype.
    """

    grid: Grid
    slot: Slot | Slots
    width: int
    initial: Initial
    tokenizer: Any = None
    prefix: int = 1
    vectors: bool = False
    positions: bool = False
    target_positions: bool = False
    soft_codes: Annotated[int, Between(0, 2**24)] = 0
    soft_scale: Annotated[float, Above(0)] = 1.0
    step_condition: bool = False
    dropout: Annotated[float, RATE] = 0.0
    dtype: Any = jnp.float32

    called = "shift"  # in messages
    cached = True
    takes_prefix = True
    looks_ahead = True
    one_table = False  # for all codes of a slot
    takes_segments = True

    @property
    def ahead(self) -> int:
        """How many of the condition's rows predict nothing."""
        return self.prefix - 1

    @property
    def length(self) -> int:
        """Rows in all."""
        return self.ahead + self.grid.size

    @property
    def modulates_rows(self) -> bool:
        """Whether every row brings a condition of its own."""
        return self.step_condition

    def alike(self, step: Step) -> Any:
        """Steps of one size, but for a first one with rows ahead."""
        return step.size, self.ahead > 0 and step.start == 0

    def check(self, ordering) -> None:
        """Raises ValueError for an order that this feed can't honour, and for what it can't make of the slots."""
        if ordering.random_decoding:
            raise ValueError(
                f"feed {self.called}: needs an order whose steps are the same for all examples, such as raster"
            )
        if ordering.random and not (self.target_positions or ordering.foretold):
            raise ValueError(f"feed {self.called}: a random order needs target_positions=True, found False")
        if not (self.target_positions or ordering.random):
            steps = np.asarray(ordering.decoding(None, 1).steps)
            if len({*zip(steps.tolist(), sources(steps).tolist(), strict=True)}) < len(steps):
                raise ValueError(
                    "config field feed.target_positions: expected True, as slots of one step follow from the same one "
                    "and must be told apart, found False"
                )
        slots = [s.slot for s in self.slot.segments] if isinstance(self.slot, Slots) else [self.slot]
        if self.vectors and (len(slots) > 1 or self.slot.coded):
            several = "a sequence of several segments" if len(slots) > 1 else "slots"
            raise ValueError(
                f"config field feed.vectors: expected False for {several}, {self.slot}, found True"
            )
        if self.soft_codes and all(slot.vocab or slot.coded for slot in slots):
            raise ValueError(
                f"config field feed.soft_codes: expected 0 for slots of {self.slot}, as numbers alone enter so, found "
                f"{self.soft_codes}"
            )

    def setup(self):
        self.content = embedding(
            self.slot,
            self.width,
            self.initial,
            self.soft_codes,
            self.soft_scale,
            self.dtype,
            vectors=self.vectors,
            shared=self.one_table,
        )
        init = self.initial.table()
        size = self.grid.size
        if self.positions:
            self.places = Embed(self.prefix + size, self.width, init, dtype=self.dtype)
        if self.target_positions:
            self.targets = Embed(size, self.width, init, dtype=self.dtype)
        if self.step_condition:
            self.steps = Embed(self.ahead + size, self.width, init, dtype=self.dtype)
        self.drop = Dropout(self.dropout)

    def inputs(self, content, condition, order: Order, quantizer=None, train: bool = False) -> Rows:
        """Rows of a whole pass, in generation sequence, after the condition's first rows; see `Feed.inputs`."""
        size = order.steps.shape[-1]
        rows = self.step_inputs((), content, condition, order, Step(0, 0, size, size, 0), quantizer)
        x = self.drop(rows.x, train)
        return dataclasses.replace(rows, x=x, layout=whole(rows.layout, condition))

    def step_inputs(self, state, content, condition, order: Order, step: Step, quantizer=None) -> Rows:
        """Rows of one step, the first after the condition's rows; see `Feed.step_inputs`."""
        plan = self._plan(order, step)
        own = None
        if self.step_condition:
            own = condition.vector[:, None] + each(self.steps(plan.row), len(condition.vector))
        layout = self._layout(plan, order, condition, 0 if plan.begins else step.start + self.ahead)
        if step.speculative:
            layout = _for_each(layout, len(condition.prefix))
        x = self._embed(plan, content, condition, quantizer)
        row = None if plan.begins or step.speculative else step.at()
        return Rows(x, layout, plan.targets, condition=own, row=row)

    def conditions(self, condition, at):
        """The condition's vector and the place in the sequence."""
        if not self.step_condition:
            return None
        return condition.vector[:, None] + self.steps(self.ahead + at)

    def _plan(self, order: Order, step: Step) -> Plan:
        at = step.at()
        if step.speculative:  # nobody looks at the rows behind the last slot
            at = jnp.minimum(at, self.grid.size - 1)
        source = static.take(sources(np.asarray(order.steps)), at)
        begins = static.known(step.start) and step.start == 0
        carried = source * (source > 0)
        return Plan(
            first=source < 0,
            carried=static.take(order.slots, carried),
            targets=static.take(order.slots, at),
            row=np.arange(self.ahead + step.size) if begins else at + self.ahead,
            segments=None if order.segments is None else static.take(order.segments, carried),
        )

    def _layout(self, plan: Plan, order: Order, condition, start) -> Layout:
        """Rows see rows of their own and earlier steps; those ahead, each of a step of its own, see one another so."""
        coords = static.where(plan.first[..., None], -1, places(self.grid, plan.carried))
        if plan.begins:
            coords = static.pad(coords, [(self.ahead, 0), (0, 0)], -1)
        coords = each(coords, condition.prefix.shape[0])
        times = np.concatenate([np.arange(self.ahead), self.ahead + np.asarray(order.steps)])
        keys = key_times(times, condition.padding)
        return Layout(static.take(times, plan.row), coords, start, keys)

    def _embed(self, plan: Plan, content, condition, quantizer):
        batch, carried = condition.prefix.shape[0], take(content, plan.carried)
        if self.vectors:
            carried = self.tokenizer.vectors(quantizer, carried)
        x = self.content(carried) if plan.segments is None else self.content(carried, plan.segments)
        x = repeat_to(x, batch)
        first = each(jnp.asarray(plan.first)[..., None], batch)
        x = jnp.where(first, condition.prefix[:, -1:].astype(x.dtype), x)
        if self.positions:
            place = static.where(plan.first, self.ahead, self.prefix + plan.carried)
            x = x + each(self.places(place), batch)
        if self.target_positions:
            x = x + each(self.targets(plan.targets), batch)
        if plan.begins:
            ahead = condition.prefix[:, :-1].astype(x.dtype)
            if self.positions:
                ahead = ahead + self.places(np.arange(self.ahead))
            x = jnp.concatenate([ahead, x], axis=1)
        return x


def _for_each(layout: Layout, batch: int) -> Layout:
    """The layout of rows that may be taken back, for a batch that is a multiple of its own."""
    times, start = (repeat_to(x, batch) for x in (layout.times, layout.start))
    return dataclasses.replace(layout, times=times, start=start, speculative=True)
