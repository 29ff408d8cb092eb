"""Contents of several kinds as rows of one width; and latents as mixtures of codes' embeddings."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen import static
from vargen.feeds.rows import Content
from vargen.layers import Initial, logical
from vargen.segments import Slots
from vargen.slots import Slot


class SoftCodes(nn.Module):
    """Latents v as mixtures of codes' embeddings E (Orthus, arXiv 2412.00127).

    sum_j w_j E_j with w_j = softmax_j(-|s v - c_j|^2). Distances and weights are float32.

    Attributes:
      size: K, the codes.
      width: D.
      initial: of the embeddings; codes start with a deviation of 1.
      scale: s, of the latents: the codes' units in theirs.
      dtype: compute dtype of the mixture.
    """

    size: int
    width: int
    initial: Initial
    scale: float = 1.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        """[B, n, C] -> [B, n, D]."""
        init = logical(nn.initializers.normal(1.0), "vocab", "latent")
        codes = self.param("codes", init, (self.size, x.shape[-1]))
        table = self.param("table", logical(self.initial.table(), "vocab", "embed"), (self.size, self.width))
        # |v|^2 is the same for all codes.
        near = 2 * self.scale * x.astype(jnp.float32) @ codes.T - jnp.sum(codes**2, axis=-1)
        weights = jax.nn.softmax(near, axis=-1)
        return weights.astype(self.dtype) @ table.astype(self.dtype)


class Contents(nn.Module):
    """Contents of a sequence's slots, each by its segment's own embedding: -> [B, n, D].

    Attributes:
      slot: what slots hold; of one segment, a plain `Content` is all there is.
      width: D.
      initial: of the parameters.
      soft_codes: K of `SoftCodes`, which embed latents; 0: a linear map does.
      scale: theirs.
      dtype: compute dtype.
    """

    slot: Slots
    width: int
    initial: Initial
    soft_codes: int = 0
    scale: float = 1.0
    dtype: Any = None

    @nn.compact
    def __call__(self, content, segments):
        """Content of n slots as of `Slots`, and the segment of each, int [n] or [B, n]."""
        found: Any = 0.0
        for number, segment in enumerate(self.slot.segments):
            x = embedding(
                segment.slot,
                self.width,
                self.initial,
                self.soft_codes,
                self.scale,
                self.dtype,
                name=segment.name,
            )(content[segment.name])
            own = static.module(segments).equal(segments, number)[..., None]
            found = jnp.where(own, x, found)
        return found


def embedding(
    slot: Slot | Slots,
    width: int,
    initial: Initial,
    soft_codes: int,
    scale: float,
    dtype: Any,
    vectors: bool = False,
    shared: bool = False,
    name=None,
) -> nn.Module:
    """What makes rows of contents; arguments as of `Contents`, and of `Content` for one segment."""
    if isinstance(slot, Slots):
        return Contents(slot, width, initial, soft_codes, scale, dtype, name=name)
    if soft_codes and not slot.vocab and not slot.coded:
        return SoftCodes(soft_codes, width, initial, scale, dtype, name=name)
    return Content(slot, width, initial, vectors, shared, dtype=dtype, name=name)
