"""What a conditioning part hands to the generator."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Condition:
    """A condition, in the ways in which it can enter.

    Attributes:
      prefix: [B, P, D]: rows before the slots' rows; the last of them predicts the first step.
      vector: [B, D], which modulates blocks and norms and fills the rows of feeds that take no more than one
        vector; None for conditions that are rows alone.
      padding: bool [B, P], rows of the prefix that nobody may look at, or None.
      memory: [B, T, D], rows that every block looks at, or None.
      hidden: bool [B, T], of these those that nobody may look at, or None.
    """

    prefix: jax.Array
    vector: Any = None
    padding: Any = None
    memory: Any = None
    hidden: Any = None
