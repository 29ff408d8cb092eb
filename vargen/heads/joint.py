"""What heads share that draft a step and refine it over several passes of the whole generator."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.heads.plain import OfLatents, guided, mean
from vargen.layers import Dense, Initial


class Joint(OfLatents):
    """A linear map of the hidden vector to what is predicted of a slot's content; see `JointHead`.

    Attributes:
      channels: C, numbers in a slot.
      zero: whether the map starts at zero.
      initial: of the model's parameters.
      dtype: compute dtype of the map; what comes of it is float32.
    """

    channels: int
    zero: bool = True
    initial: Initial = Initial()  # noqa: RUF009
    dtype: Any = jnp.float32

    def setup(self):
        init = nn.initializers.zeros if self.zero else self.initial.kernel()
        self.out = Dense(self.channels, ("embed", "latent"), init, dtype=self.dtype)

    def __call__(self, hidden):
        """Predictions: [..., D] -> float32 [..., C]."""
        return self.out(hidden).astype(jnp.float32)

    def loss(self, hidden, target, layout=None, weight=None, train: bool = True, quantizer=None, soft=None):
        """Mean squared error of the predictions.

        Args:
          hidden: [B, N, D].
          target: of `Noised`, [B, N, C].
          layout, train, quantizer, soft: unused here.
          weight: float32 [B, N], or None for ones.

        Returns:
          The loss, and metrics: none.
        """
        error = jnp.mean((self(hidden) - target) ** 2, axis=-1)
        return mean(error, weight), {}

    def guided(self, hidden, guidance=None):
        """Predictions of hidden [B, n, D], or under guidance of [2B, n, D], see `guided`."""
        return guided(self(hidden), guidance)


def of_steps(draw, key, batch: int, steps: np.ndarray) -> jax.Array:
    """[B, N]: for every slot what `draw(key, [B, T])` gave its step; steps int [N]."""
    return draw(key, (batch, int(steps.max()) + 1))[:, steps]
