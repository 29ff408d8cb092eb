"""Class labels, with a null class for classifier-free guidance."""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen import inputs
from vargen.conditioning.condition import Condition
from vargen.conditioning.conditioning import Apart
from vargen.errors import UserError
from vargen.layers import Embed, Initial, logical
from vargen.limits import SHARE, Between

TABLE = "condition/classes/table"  # the parameter of a generator that has a row for each class, and the last for none


class LabelEmbedding(Apart, nn.Module):
    """A vector per class, and one for "no class" behind them (index `num_classes`) where labels are ever taken away.

    Attributes:
      num_classes: number of classes.
      width: D.
      initial: of the parameters.
      dropout: probability with which `drop` takes the label away (arXiv 2207.12598); None: never, and there is nothing
        to guide away from.
      lead: learned rows before the label's own (RAR, arXiv 2411.00776, has one).
      zero_lead: whether these start at zero.
    """

    num_classes: int
    width: int
    initial: Initial
    dropout: Annotated[float | None, SHARE] = 0.1
    lead: Annotated[int, Between(0, 4096)] = 0
    zero_lead: bool = False
    dtype: Any = jnp.float32

    takes = "classes"
    pads = False
    pooled = True

    @property
    def length(self) -> int:
        """P, the rows that it makes."""
        return self.lead + 1

    @property
    def null(self) -> int:
        """The index that stands for no condition."""
        return self.num_classes

    def parse(self, labels, names=()) -> Any:
        """int32 [B] from what a user gave: numbers of classes, their names, None for no label.

        Raises:
          UserError: other than whole numbers, or out of range, see `inputs.labels`; None where labels are never taken
            away.
        """
        found = inputs.labels(labels, self.num_classes, names)
        if self.dropout is None and (found == self.null).any():
            raise UserError(
                f"class: expected 0 to {self.num_classes - 1}, found none, which this model hasn't learnt"
            )
        return found

    def example(self):
        """int32 [1]: labels as `parse` gives them, for initialisation."""
        return jnp.zeros(1, jnp.int32)

    def without(self, labels):
        """int32 [B]: as many null classes as there are labels.

        Raises:
          ValueError: there is no such class.
        """
        if self.dropout is None:
            raise ValueError(
                "sampling.guidance: expected none, as the model has learnt no pictures without a class, found some"
            )
        return jnp.full_like(labels, self.null)

    def drop(self, labels, key):
        """int32 [B]: labels [B], each replaced by the null class with probability `dropout`."""
        if self.dropout is None:
            return labels
        gone = jax.random.bernoulli(key, self.dropout, labels.shape)
        return jnp.where(gone, self.null, labels)

    @nn.compact
    def __call__(self, labels) -> Condition:
        """int32 [B] -> a condition of lead + 1 rows, the last of which is its vector."""
        init = self.initial.table()
        count = self.num_classes + (self.dropout is not None)
        vector = Embed(count, self.width, init, dtype=self.dtype, name="classes")(labels)
        prefix = vector[:, None]
        if self.lead:
            init = nn.initializers.zeros if self.zero_lead else init
            lead = self.param("lead", logical(init, None, "embed"), (self.lead, self.width))
            lead = jnp.broadcast_to(lead.astype(self.dtype), (len(labels), *lead.shape))
            prefix = jnp.concatenate([lead, prefix], axis=1)
        return Condition(prefix, vector)
