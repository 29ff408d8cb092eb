"""The head axis: what distribution is put over the contents of slots."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vargen.content import Noised
from vargen.draws import Draws
from vargen.layers import Linen
from vargen.layout import Layout
from vargen.slots import Slot


class Sample(NamedTuple):
    """What a head drew.

    Attributes:
      content: [B, n, *slot.shape].
      score: float32 [B, n], its log-probability as the model has it, before temperature and filters; None where the
        head has none.
      memory: of a draft, what the next pass must know beside its content: arrays [B, n, ...].
      drawn: float32 [B, n], its log-probability in the law that it was drawn from, after temperature (which counts as 1
        where it is 0) and filters; None where the head has no such law (`Head.enumerable`).
      logit: float32 [B, n], its logit under guidance, before temperature and filters; None as of `drawn`.
    """

    content: jax.Array
    score: jax.Array | None
    memory: Any = ()
    drawn: jax.Array | None = None
    logit: jax.Array | None = None


class Around(NamedTuple):
    """What is told to a head that draws slots together with all others around them (`Head.around`).

    Attributes:
      slots: int [B, m]: which are wanted; None for all.
      content: [B, N, *slot.shape], canonical, what is known; anything elsewhere.
      known: bool [B, N]: where.
    """

    slots: Any
    content: jax.Array
    known: jax.Array


class Head(Linen, Protocol):
    """A Linen module: a distribution over the contents of slots, given the hidden vectors of their rows.

    Attributes:
      called: its name in messages.
      explicit: whether there is `log_prob`, and so scores.
      noise_levels: None; see `JointHead`.
      shares: parameters of the generator's other parts that it is computed with too, by their names
        ("feed/content/codes/table"); it finds them in its collection "shared".
      enumerable: whether there is `law`: a slot holds one of K codes.
      filters: whether what it draws are codes, or some of it, which top-k and top-p filter.
      each_stage: whether it reads the rows after every stage, a code of the slot after each. Its `hidden` are then
        [B, n, s, D] after s stages, all of them but in `sample`, which draws the last of their s codes: content [B, n].
      around: whether `sample` takes the hidden vectors of all rows of a pass, draws for [B, N] and an `Around`, and
        gives content [B, m].
      rounds: how many rounds of the feed it has parts of its own for; 1: it serves any.
    """

    @property
    def called(self) -> str: ...
    @property
    def explicit(self) -> bool: ...
    @property
    def around(self) -> bool: ...
    @property
    def rounds(self) -> int: ...
    @property
    def noise_levels(self) -> None: ...
    @property
    def shares(self) -> tuple[str, ...]: ...
    @property
    def enumerable(self) -> bool: ...
    @property
    def filters(self) -> bool: ...
    @property
    def each_stage(self) -> bool: ...

    def check(self, slot: Slot) -> None:
        """Raises ValueError for slots that hold what it doesn't model."""
        ...

    def loss(
        self, hidden, target, layout: Layout, weight=None, train: bool = True, quantizer=None, soft=None
    ) -> tuple[jax.Array, dict]:
        """The training loss, a float32 scalar, and metrics.

        Args:
          hidden: [B, n, D].
          target: [B, n, *slot.shape].
          layout: of the slots predicted, [n] or [B, n]: their times, of which those of one step have one, as they are
            drawn together; their places; and their segments, where there are several.
          weight: float32 [B, n]: how much each prediction counts; None for ones.
          train: whether dropout is on.
          quantizer: the tokenizer's quantiser parameters.
          soft: None, or float32 [B, n, *slot.shape, K]: probabilities of codes to learn instead of `target`, which was
            drawn from them.
        """
        ...

    def sample(
        self,
        hidden,
        draws: Draws,
        layout: Layout,
        settings: Any,
        guidance=None,
        quantizer=None,
        around: Around | None = None,
    ) -> Sample:
        """Draws contents.

        Args:
          hidden: [B, n, D], or with guidance [2B, n, D]: with the condition, then without.
          draws: for [B, n].
          layout: of the step's slots, whose times are 0: what only fills it up comes later.
          settings: `Sampling`: temperature and filters.
          guidance: scale w of u + w (c - u), [] or for each slot [B, n, 1]; or None for no guidance.
          quantizer: the tokenizer's quantiser parameters.
          around: told to heads that draw by it; None: nothing is known, and all slots are wanted.
        """
        ...

    def log_prob(self, hidden, target, quantizer=None) -> jax.Array:
        """float32 [B, n], nats: log-probability of contents; where `explicit`."""
        ...

    def law(self, hidden, settings: Any, guidance=None) -> jax.Array:
        """float32 [B, n, K]: logits of what `sample` draws from, -inf for what it never draws; where `enumerable`.

        Arguments as for `sample`.
        """
        ...


class JointHead(Linen, Protocol):
    """A Linen module that draws all slots of a step together, over several passes of the whole generator.

    It drafts a step's contents as noise, and refines them by what each pass makes of the draft. The feed must show it
    (`Feed.drafts`).

    Attributes:
      explicit, enumerable, filters, each_stage, around: False.
      rounds: 1.
      called, shares: as of `Head`.
      noise_levels: float32 [P], NumPy: the noise level of the draft in each pass, see `Noised`.
    """

    @property
    def called(self) -> str: ...
    @property
    def explicit(self) -> bool: ...
    @property
    def enumerable(self) -> bool: ...
    @property
    def filters(self) -> bool: ...
    @property
    def each_stage(self) -> bool: ...
    @property
    def around(self) -> bool: ...
    @property
    def rounds(self) -> int: ...
    @property
    def shares(self) -> tuple[str, ...]: ...
    @property
    def noise_levels(self) -> np.ndarray: ...

    def check(self, slot: Slot) -> None:
        """Raises ValueError for slots that hold what it doesn't model."""
        ...

    def noised(self, content, steps: np.ndarray) -> Noised:
        """Contents as they are trained on: every step's with noise of a level of its own (needs the rng "head").

        Args:
          content: [B, N, C], canonical.
          steps: int [N]: the step of each.
        """
        ...

    def loss(
        self, hidden, target, layout: Layout, weight=None, train: bool = True, quantizer=None, soft=None
    ) -> tuple[jax.Array, dict]:
        """As `Head.loss`, with `Noised.target` for target."""
        ...

    def start(self, draws: Draws, settings: Any) -> Sample:
        """The draft before the first pass, for [B, n]; `settings` as of `Head.sample`."""
        ...

    def refine(self, hidden, draft: Sample, at: Any, settings: Any, guidance=None) -> Sample:
        """The draft after a pass, of the last one the step's contents.

        Args:
          hidden: [B, n, D], or with guidance [2B, n, D]: with the condition, then without.
          draft: before it.
          at: the pass (int, or traced in a scan).
          settings, guidance: as of `Head.sample`.
        """
        ...


def together(samples: list[Sample]) -> Sample:
    """What a pass drew: a whole, or one code after each stage."""
    if len(samples) == 1:
        return samples[0]
    content = jnp.stack([s.content for s in samples], axis=-1)
    scores = [s.score for s in samples if s.score is not None]
    return Sample(content, jnp.sum(jnp.stack(scores), axis=0) if scores else None)
