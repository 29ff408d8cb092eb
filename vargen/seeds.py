"""Seeds of 64 bits, and the PRNG keys that they make."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from vargen.errors import UserError

if TYPE_CHECKING:
    import jax

LIMIT = 2**64


def check(seed: Any, name: str = "seed") -> int:
    """A seed as a Python int.

    Args:
      seed: a whole number from 0 to 2^64 - 1; bool and float are none.
      name: what it is called in the message.

    Raises:
      UserError: anything else.
    """
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < LIMIT:
        raise UserError(f"{name}: expected a whole number from 0 to {LIMIT - 1}, found {seed!r}")
    return number


def key(seed: Any, name: str = "seed") -> jax.Array:
    """The PRNG key of a seed; all its 64 bits count, and below 2^32 it is `jax.random.key(seed)`.

    Raises:
      UserError: see `check`.
    """
    import jax
    import numpy as np

    high, low = divmod(check(seed, name), 2**32)
    first = jax.random.key(np.uint32(low))
    return jax.random.fold_in(first, np.uint32(high)) if high else first
