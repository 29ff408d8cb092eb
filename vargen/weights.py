"""A generator's parameters as a model holds them: as they were given, and as decoding reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from vargen.generator import Generator


class Weights:
    """Parameters, made ready for decoding once (`Generator.ready`) and kept.

    Where that changes any, those given go to the host: the device holds one copy, the one that is read.

    Attributes:
      given: as they were trained or published.
    """

    def __init__(self, given: Any):
        self.given = given
        self._made: dict[tuple, Any] = {}

    def ready(self, generator: Generator) -> Any:
        """As a generator reads them; made once for every form."""
        given = jax.tree.map(lambda x: x.dtype, self.given)
        wanted = generator.dtypes
        if given == wanted:
            return self.given
        form = tuple(map(str, jax.tree.leaves(wanted)))
        if form not in self._made:
            self._made[form] = generator.ready(jax.tree.map(jnp.asarray, self.given))
            self.given = jax.device_get(self.given)
        return self._made[form]
