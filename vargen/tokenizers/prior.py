"""Codes that are easy to draw one after another: a small causal transformer learns to, together with the tokenizer.

LARP (arXiv 2410.21264, section 3.3): it reads the codes' vectors so far and says the next, whose likeness to the table
is its distribution; the loss draws the encoder to sequences that it can tell. In a second round some of the vectors are
those that it drew in the first (scheduled sampling, arXiv 1506.03099). It is no part of the tokenizer.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.layers import Dense
from vargen.limits import check_heads
from vargen.tokenizers.autoencoder import flat
from vargen.tokenizers.distances import nearest, normalised
from vargen.tokenizers.transformer import XAVIER, Rows, Sizes, Transformer, norm

GROUP = "tokenizer_training.losses"
ROUNDS = 2


class NextVector(nn.Module):
    """The next vector of a sequence, on the unit sphere.

    Attributes:
      sizes: of the blocks.
      channels: C.
    """

    sizes: Sizes
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float32 [B, N, C] -> [B, N, C], for each place what follows it."""
        x = Rows(self.sizes.width, jnp.float32, name="vectors")(x)
        x = Transformer(self.sizes, tuple(range(x.shape[1])), False, jnp.float32, name="blocks")(x)
        x = norm(self.sizes, "norm_out")(x)
        return normalised(Dense(self.channels, ("embed", "latent"), XAVIER.kernel(), name="out")(x))


@dataclasses.dataclass(frozen=True)
class Prior:
    """The loss of a transformer that draws a tokenizer's codes.

    Attributes:
      tokenizer: an `Autoencoder` of one code a slot.
      sizes: of its blocks.
      temperature: by which likenesses are divided.
      ratio: of vectors that are its own in the second round, at most.
      rise: share of the training after which there are so many.
    """

    tokenizer: Any
    sizes: Sizes
    temperature: float
    ratio: float
    rise: float

    @property
    def network(self) -> NextVector:
        """What says the next vector."""
        return NextVector(self.sizes, self.tokenizer.channels)

    def init_boxed(self, key: jax.Array) -> dict:
        """The network's parameters with logical axis names."""
        return self.network.init(key, jnp.zeros((1, self.tokenizer.grid.size - 1, self.tokenizer.channels)))[
            "params"
        ]

    def __call__(
        self, network: dict, params: dict, latents: jax.Array, key: jax.Array, progress: jax.Array
    ) -> jax.Array:
        """The cross-entropy of the codes but the first, averaged over places and rounds, in nats: [].

        Args:
          network: parameters of `init_boxed`.
          params: the tokenizer's.
          latents: float32 [B, h, w, C], of its bottleneck.
          key: for what is drawn between the rounds.
          progress: float32 [], the share of the training that is done.
        """
        t = self.tokenizer
        vectors = jax.lax.stop_gradient(t.vectors(params["quantizer"], np.arange(t.vocab)))
        latents = flat(latents).astype(jnp.float32)
        codes = nearest(latents.reshape(-1, t.channels), vectors).reshape(latents.shape[:2])
        x, table = normalised(latents), normalised(vectors)
        key_mix, key_draw = jax.random.split(key)
        ratio = self.ratio * jnp.minimum(progress / self.rise, 1.0)
        own = jax.random.uniform(key_mix, (*codes[:, 1:].shape, 1)) < ratio
        return jnp.mean(jnp.stack(self.rounds(network, x, codes, table, own, key_draw)))

    def rounds(
        self, network: dict, x: jax.Array, codes: jax.Array, table: jax.Array, own: jax.Array, key: jax.Array
    ) -> list[jax.Array]:
        """The cross-entropy of each round [].

        Args:
          network: parameters.
          x: float32 [B, N, C], unit vectors.
          codes: int [B, N].
          table: float32 [K, C], unit vectors.
          own: bool [B, N - 1, 1]: which vectors but the first are the network's own in later rounds.
          key: for drawing them.
        """
        found = []
        for i in range(ROUNDS):
            logits = self.logits(network, x, table)
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), codes[:, 1:, None], axis=-1)
            found.append(-jnp.mean(chosen))
            drawn = table[jax.random.categorical(jax.random.fold_in(key, i), logits)]
            x = jnp.concatenate([x[:, :1], jnp.where(own, drawn, x[:, 1:])], axis=1)
        return found

    def logits(self, network: dict, x: jax.Array, table: jax.Array) -> jax.Array:
        """Of all codes at all places but the first: float32 [B, N - 1, K]."""
        said = self.network.apply({"params": network}, x[:, :-1])
        return jnp.matmul(said, table.T, precision=jax.lax.Precision.HIGHEST) / self.temperature


def build(tokenizer: Any, settings: Any) -> Prior | None:
    """The loss that `config.tokenizer_training.losses` names; None where its weight is 0.

    Raises:
      UserError: a tokenizer that has no codes, several a slot, or several levels; a width that doesn't divide into
        heads.
    """
    if not settings.prior:
        return None
    if not tokenizer.vocab or tokenizer.slot.shape or len(tokenizer.grid.levels) > 1:
        raise UserError(
            f"config field {GROUP}.prior: needs a tokenizer of one code a slot and one level, found slots of "
            f"{tokenizer.slot} in {len(tokenizer.grid.levels)} levels"
        )
    check_heads(settings.prior_heads, settings.prior_width, f"{GROUP}.prior_heads")
    sizes = Sizes(settings.prior_width, settings.prior_layers, settings.prior_heads)
    return Prior(tokenizer, sizes, settings.prior_temperature, settings.prior_ratio, settings.prior_rise)
