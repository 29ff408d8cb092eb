"""The vision transformer (arXiv 2010.11929) in the forms that teachers have."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import ACTIVATIONS, Dense, Norm, logical
from vargen.tokenizers import patches, resample

NORMAL = nn.initializers.normal(0.02)


class VitBlock(nn.Module):
    """Attention among all rows, then an MLP, each with a norm before it and added, by a learned scale if so wished.

    Attributes:
      heads: H.
      hidden: width inside the MLP.
      act: its activation, "gelu", "gelu_tanh" or "silu".
      scaled: whether what is added has a learned scale for each channel (LayerScale, arXiv 2103.17239).
      dtype: of the computation.
      eps: of the norms.
    """

    heads: int
    hidden: int
    act: str
    scaled: bool
    dtype: Any
    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        width = x.shape[-1]
        h = Norm(eps=self.eps, name="norm1")(x)
        qkv = Dense(3 * width, ("embed", "heads"), NORMAL, dtype=self.dtype, name="qkv")(h)
        h = attention(*jnp.split(qkv, 3, axis=-1), self.heads)
        h = Dense(width, ("heads", "embed"), NORMAL, dtype=self.dtype, name="out")(h)
        x = x + self._scale("scale1", h)
        h = mlp(Norm(eps=self.eps, name="norm2")(x), self.hidden, self.act, self.dtype)
        return x + self._scale("scale2", h)

    def _scale(self, name, h):
        if not self.scaled:
            return h
        return h * self.param(name, logical(nn.initializers.ones, "embed"), (h.shape[-1],))


class Vit(nn.Module):
    """Rows of patches, and before them a class token and registers where there are some.

    Attributes:
      patch: pixels per side of a patch.
      width: D.
      layers: blocks.
      heads, hidden, act, scaled: of the blocks.
      places: side of the table of places, which is interpolated to the patches that there are.
      tokens: whether there is a class token, which has a place too and is what is pooled; else a learned query attends
        to the rows (SigLIP), or where there is no `norm` they are averaged.
      registers: further rows without a place (arXiv 2309.16588); with them a table of places is smoothed before it is
        made smaller.
      norm: whether the last norm is applied.
      dtype: of the computation.
      first_norm: whether rows are normed before the first block (CLIP, arXiv 2103.00020).
      eps: of the norms.
    """

    patch: int
    width: int
    layers: int
    heads: int
    hidden: int
    act: str
    scaled: bool
    places: int
    tokens: bool
    registers: int
    norm: bool
    dtype: Any
    first_norm: bool = False
    eps: float = 1e-6

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, 3] -> float32 [B, h, w, D] of the patches, [B, D] of the whole."""
        batch, height, width, _ = images.shape
        h, w = height // self.patch, width // self.patch
        x = patches.apart(images, self.patch).astype(self.dtype)
        x = Dense(self.width, (None, "embed"), NORMAL, dtype=self.dtype, name="patch")(x)
        first = int(self.tokens)
        places = self._table("places", first + self.places**2)
        table = places[first:].reshape(1, self.places, self.places, -1)
        if self.registers and (h, w) != table.shape[1:3]:  # whose authors changed how tables are interpolated
            table = jax.image.resize(table, (1, h, w, self.width), "cubic", antialias=True)
        x = x + resample.bicubic(table, (h, w)).reshape(1, h * w, -1).astype(self.dtype)
        rows = [places[:1] + self._table("token", 1)] if self.tokens else []
        rows += [self._table("registers", self.registers)] if self.registers else []
        rows = [jnp.broadcast_to(y.astype(self.dtype), (batch, *y.shape)) for y in rows]
        x = jnp.concatenate([*rows, x], axis=1)
        x = Norm(eps=self.eps, name="first_norm")(x) if self.first_norm else x
        block = (self.heads, self.hidden, self.act, self.scaled, self.dtype, self.eps)
        for i in range(self.layers):
            x = VitBlock(*block, name=f"block{i}")(x)
        x = Norm(eps=self.eps, name="norm")(x) if self.norm else x
        grid = x[:, first + self.registers :].astype(jnp.float32)
        if self.tokens:
            pooled = x[:, 0]
        elif self.norm:
            pooled = Pool(self.heads, self.hidden, self.act, self.dtype, name="pool")(x)
        else:
            pooled = jnp.mean(grid, axis=1)
        return grid.reshape(batch, h, w, -1), pooled.astype(jnp.float32)

    def _table(self, name, rows):
        return self.param(name, logical(NORMAL, None, "embed"), (rows, self.width))


class Pool(nn.Module):
    """A learned query that attends to all rows, then an MLP: SigLIP's whole of a picture. Attributes: `VitBlock`'s."""

    heads: int
    hidden: int
    act: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, D]."""
        batch, _, width = x.shape
        probe = self.param("probe", logical(NORMAL, None, "embed"), (1, width))
        q = Dense(width, ("embed", "heads"), NORMAL, dtype=self.dtype, name="query")(probe)
        kv = Dense(2 * width, ("embed", "heads"), NORMAL, dtype=self.dtype, name="key_value")(x)
        h = attention(jnp.broadcast_to(q, (batch, 1, width)), *jnp.split(kv, 2, axis=-1), self.heads)
        h = Dense(width, ("heads", "embed"), NORMAL, dtype=self.dtype, name="out")(h)
        return (h + mlp(Norm(name="norm2")(h), self.hidden, self.act, self.dtype))[:, 0]


def attention(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """Everyone sees everyone: [B, M, D], [B, N, D], [B, N, D] -> [B, M, D]; the softmax is float32."""
    split = (y.reshape(*y.shape[:2], heads, -1) for y in (q, k, v))
    return jax.nn.dot_product_attention(*split).reshape(q.shape)


def mlp(x: jax.Array, hidden: int, act: str, dtype: Any) -> jax.Array:
    """Two dense layers of the module that calls it, `up` and `down`."""
    h = ACTIVATIONS[act](Dense(hidden, ("embed", "mlp"), NORMAL, dtype=dtype, name="up")(x))
    return Dense(x.shape[-1], ("mlp", "embed"), NORMAL, dtype=dtype, name="down")(h)
