"""Captions as a text encoder embeds them (LlamaGen, arXiv 2406.06525): rows before the image's."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import inputs
from vargen.conditioning.condition import Condition
from vargen.conditioning.conditioning import Apart
from vargen.errors import UserError
from vargen.layers import Dense, Initial, logical
from vargen.limits import SHARE, SIZE, Between


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Captions:
    """Captions of a batch.

    Attributes:
      embedding: float32 [B, T, E]: the text encoder's states, padded on the left.
      mask: bool [B, T]: which of them are text.
      dropped: bool [B]: captions that are taken away.
    """

    embedding: jax.Array
    mask: jax.Array
    dropped: jax.Array


class CaptionEmbedding(Apart, nn.Module):
    """A row per token of the text encoder, through a small network.

    Attributes:
      width: D.
      initial: of the parameters.
      tokens: T, the longest caption; also the number of rows.
      channels: E, the text encoder's width.
      dropout: probability with which `drop` takes a caption away (arXiv 2207.12598).
    """

    width: int
    initial: Initial
    tokens: Annotated[int, Between(1, 2**16)] = 120
    channels: Annotated[int, SIZE] = 2048
    dropout: Annotated[float, SHARE] = 0.1
    dtype: Any = jnp.float32

    takes = "embeddings"
    pads = True
    pooled = False

    @property
    def length(self) -> int:
        """P, the rows that it makes."""
        return self.tokens

    def parse(self, captions, names=()) -> Captions:
        """Captions from what a user gave: (embedding float [B, T, E], mask [B, T]), or `Captions`.

        Padding is moved to the left, where the model expects it.

        Raises:
          UserError: no such pair, no captions, another shape than the model's, embeddings that aren't finite
            floats, a mask of other than 0 and 1.
        """
        if isinstance(captions, Captions):
            self._check(captions.embedding, captions.mask)
            if jnp.shape(captions.dropped) != captions.mask.shape[:1]:
                found = list(jnp.shape(captions.dropped))
                raise UserError(f"captions: expected dropped {list(captions.mask.shape[:1])}, found {found}")
            return captions
        try:
            embedding, mask = captions
        except (TypeError, ValueError) as error:
            found = type(captions).__name__
            raise UserError(f"captions: expected a pair of embeddings and mask, found {found}") from error
        embedding, mask = self._check(embedding, mask)
        embedding, mask = np.asarray(embedding, np.float32), np.asarray(mask).astype(bool)
        order = np.argsort(mask, axis=1, kind="stable")
        mask = np.take_along_axis(mask, order, axis=1)
        embedding = np.take_along_axis(embedding, order[..., None], axis=1) * mask[..., None]
        return Captions(embedding, mask, np.zeros(len(mask), bool))

    def _check(self, embedding, mask):
        """Both as arrays, which fit the model and each other."""
        shape = f"[B, {self.tokens}, {self.channels}]"
        embedding = inputs.array(embedding, "captions", f"embeddings {shape}")
        mask = inputs.array(mask, "captions", f"a mask [B, {self.tokens}]")
        if embedding.shape[1:] != (self.tokens, self.channels) or not embedding.shape[0]:
            raise UserError(f"captions: expected embeddings {shape}, found {list(embedding.shape)}")
        if mask.shape != embedding.shape[:2]:
            wanted = list(embedding.shape[:2])
            raise UserError(f"captions: expected a mask {wanted}, found {list(mask.shape)}")
        inputs.finite("captions", f"embeddings {shape} of floats", embedding)
        if not isinstance(mask, jax.core.Tracer) and not np.isin(np.asarray(mask), (0, 1)).all():
            raise UserError("captions: expected a mask of 0 and 1, found other values")
        return embedding, mask

    def example(self) -> Captions:
        """One caption, for initialisation."""
        return Captions(
            jnp.zeros((1, self.tokens, self.channels)), jnp.ones((1, self.tokens), bool), jnp.zeros(1, bool)
        )

    def without(self, captions: Captions) -> Captions:
        """The same captions, taken away; the padding stays, as in the authors' sampler."""
        return dataclasses.replace(captions, dropped=jnp.ones_like(captions.dropped))

    def drop(self, captions: Captions, key) -> Captions:
        """Each taken away with probability `dropout`."""
        gone = jax.random.bernoulli(key, self.dropout, captions.dropped.shape)
        return dataclasses.replace(captions, dropped=captions.dropped | gone)

    @nn.compact
    def __call__(self, captions: Captions) -> Condition:
        """A condition of T rows and no vector."""
        normal = nn.initializers.normal(self.channels**-0.5)
        shape = (self.tokens, self.channels)
        # Not trained by the authors: a fixed random stand-in for an encoder's states.
        null = jax.lax.stop_gradient(self.param("null", logical(normal, None, "embed"), shape))
        x = jnp.where(captions.dropped[:, None, None], null, captions.embedding)
        init = self.initial.kernel()
        for name in ("inner", "outer"):
            x = Dense(self.width, ("embed", "mlp"), init, bias=False, dtype=self.dtype, name=name)(x)
            x = nn.gelu(x, approximate=True) if name == "inner" else x
        return Condition(x, padding=~captions.mask)
