"""What stays through a decoding, what a step changes, and what comes of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from vargen import content as contents
from vargen.draws import Draws
from vargen.feeds.rows import Step
from vargen.orders import Order
from vargen.samplers.settings import Sampling

if TYPE_CHECKING:
    from vargen.generator import Generator


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """What stays the same through the decoding of one batch.

    Attributes:
      generator: it.
      params, quantizer: its parameters, and the tokenizer's quantiser's.
      condition, modulations: of the labels; under guidance with the label, then without.
      order: the order of generation.
      slots: its slots, int32 [B, N].
      draws: the randomness of every slot [B, N], canonical; where the order revises, of each step by `Draws.of`.
      scales: float32 [T], guidance of each step; None for none.
      sampling: the settings.
      kept: None, or (content [B, N, *slot.shape], bool [N]): what stands in the place of what is drawn.
      other: what the rows without a condition see in the place of some slots: content [B, N, ...] and bool [N]; None
        where they see the same.
      unseen: None, or bool [B, N]: slots whose codes a third kind of rows doesn't see, without a condition too.
    """

    generator: Generator
    params: Any
    quantizer: Any
    condition: Any
    modulations: Any
    order: Order
    slots: jax.Array
    draws: Draws
    scales: jax.Array | None
    sampling: Sampling
    kept: Any = None
    other: tuple[Any, Any] | None = None
    unseen: Any = None

    def seen(self, content):
        """Content [B, N, ...] as rows see it: of those without a condition, where it differs, behind those with one."""
        if self.unseen is not None:
            return jnp.concatenate([content, content, jnp.where(self.unseen, contents.UNSEEN, content)])
        if self.other is None:
            return content
        without = contents.choose(self.other[1], self.other[0], content)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), content, without)

    def guidance(self, step) -> Any:
        """What the head takes: None, the scale of a step, or that and the one by what is given."""
        if self.scales is None:
            return None
        scale = self.scales[step]
        return scale if self.unseen is None else (scale, self.sampling.spatial_guidance)

    def feed(self, method: str, *args):
        """A method of the feed."""
        return self.generator.feed.apply({"params": self.params["feed"]}, *args, method=method)

    def head(self, method: str, *args, branch: int = 0):
        """A method of the head behind a branch."""
        return self.generator.head.apply(self.generator.of_head(self.params, branch), *args, method=method)

    def step(self, decoding: Decoding, content, step: Step, draw=None):
        """One pass, see `Generator.step`."""
        params, seen = (self.params, self.quantizer), (self.condition, self.modulations, self.order, step)
        return self.generator.step(*params, decoding.state, decoding.cache, self.seen(content), *seen, draw)

    def at(self, decoding: Decoding, step: Step) -> Call:
        """The call as it stands at a step, where the order revises."""
        if decoding.slots is None:
            return self
        order = dataclasses.replace(self.order, slots=decoding.slots)
        draws = self.draws.of(step.index)
        return dataclasses.replace(self, order=order, slots=decoding.slots, draws=draws)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoding:
    """What a step changes.

    Attributes:
      content: [B, N, *slot.shape], canonical, or a dict of such; zeros where nothing is known yet.
      state: the feed's.
      cache: of the stages, or None.
      score: of `Sample`, [B, N, ...], canonical; None where nobody asks for it.
      slots: int32 [B, N], the order's as they stand, where it revises: those that are known, then the others, of which
        `content` and `score` are what the last step proposed. None where they stay.
    """

    content: jax.Array
    state: Any
    cache: Any
    score: Any = None
    slots: Any = None


class Decoded(NamedTuple):
    """What came of decoding.

    Attributes:
      content: [B, N, *slot.shape], canonical.
      order: in which it came.
      score: float32 [B, N]: log-probability of each slot's content as the head had it when it drew it, under guidance;
        None where it wasn't asked for.
      passes: int32 [B]: passes through the blocks until each example was done.
    """

    content: jax.Array
    order: Order
    score: jax.Array | None
    passes: jax.Array
