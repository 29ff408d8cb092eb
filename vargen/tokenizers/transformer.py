"""Transformers inside tokenizers: blocks over rows that lie nowhere but in their tables of places, or on a grid."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.layers import Dense, Initial, Norm, logical, stacked
from vargen.layout import Layout
from vargen.mixers.attention import Attention
from vargen.mixers.block import MODULATIONS, Block
from vargen.sharding import by_batch

XAVIER = Initial(0)
SMALL = nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of a transformer's blocks.

    Attributes:
      width: D.
      layers: L.
      heads: H, of the attention.
      mlp: kind of the position-wise network (`layers.Mlp`).
      mlp_ratio: its inner width over D.
      norm: of the blocks.
      bias: whether the products have biases.
      qk_norm: of queries and keys (`Attention`).
      logit_scale: factor on the attention's logits over 1/sqrt(D/H).
      eps: of the norms.
      affine: whether norms, those of queries and keys too, have a learned scale (and bias).
      key_bias: whether keys have a bias where products have.
      rotary: whether queries and keys turn with their rows' places.
      outer_affine: whether norms before and after the blocks have a learned scale (and bias) too.
      gates: whether what a block adds is times a learned number for each channel, 0 to begin with (LayerScale, arXiv
        2103.17239), where no condition modulates it.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    mlp: str = "gelu"
    mlp_ratio: float = 4.0
    norm: str = "layer"
    bias: bool = True
    qk_norm: str = "none"
    logit_scale: float = 1.0
    eps: float = 1e-6
    affine: bool = True
    key_bias: bool = True
    rotary: bool = False
    outer_affine: bool = True
    gates: bool = False

    def block(self, modulated: bool, dtype: Any, kinds: int = 1) -> Block:
        """A block, modulated by a condition where so asked (adaLN-Zero, arXiv 2212.09748), each kind of rows apart."""
        init = XAVIER.kernel()
        mixer = Attention(
            self.width,
            self.heads,
            init,
            init,
            qk_norm=self.qk_norm,
            norm_affine=self.affine,
            bias=("qkv" if self.key_bias else "qv") if self.bias else "none",
            out_bias=self.bias,
            rope="places" if self.rotary else "none",
            scale=self.logit_scale,
            eps=self.eps,
            in_gain=0.5**0.5,
            dtype=dtype,
            parent=None,
        )
        return Block(
            mixer=mixer,
            width=self.width,
            mlp=self.mlp,
            mlp_width=int(self.width * self.mlp_ratio),
            initial=XAVIER,
            out_init=init,
            norm=self.norm,
            affine=self.affine and not modulated,
            eps=self.eps,
            bias=self.bias,
            adaptive="adaln" if modulated else "none",
            kinds=kinds,
            adaln_zero=True,
            dtype=dtype,
            name="block",
        )


class Layer(nn.Module):
    """A block of a stack.

    Attributes:
      sizes: of the block.
      times: int [N], of its rows: a row sees those of its own and of earlier times.
      modulated: whether a condition modulates it.
      dtype: of the computation.
      kinds: int [N], 0, 1, ...: rows of each kind are modulated apart; None: all alike.
      coords: int [N, 2], their places, by which they turn where they do; None: none has one.
    """

    sizes: Sizes
    times: tuple[int, ...]
    modulated: bool
    dtype: Any
    kinds: tuple[int, ...] | None = None
    coords: tuple[tuple[int, int], ...] | None = None

    @property
    def layout(self) -> Layout:
        """Of the rows."""
        coords = np.zeros((len(self.times), 2)) if self.coords is None else np.array(self.coords)
        return Layout(np.array(self.times, np.int32), coords.astype(np.int32))

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """[B, N, D], condition [B, 1, D] or None -> [B, N, D]."""
        kinds = None if self.kinds is None else np.array(self.kinds)
        block = self.sizes.block(self.modulated, self.dtype, 1 if kinds is None else int(kinds.max()) + 1)
        modulation = None
        if self.modulated:
            modulation = block.modulate(condition, kinds)
        elif self.sizes.gates:
            shape = (2, self.sizes.width)
            gates = self.param("gates", logical(nn.initializers.zeros, None, "embed"), shape)
            rest = jnp.zeros((MODULATIONS - 2, self.sizes.width), self.dtype)
            modulation = jnp.concatenate([gates.astype(self.dtype), rest])[None, None]
        return block(by_batch(x), modulation, self.layout)[0]


class Transformer(nn.Module):
    """L blocks, one after another; the attributes are `Layer`'s. Parameters are stacked, and loops go over them."""

    sizes: Sizes
    times: tuple[int, ...]
    modulated: bool
    dtype: Any
    kinds: tuple[int, ...] | None = None
    coords: tuple[tuple[int, int], ...] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """[B, N, D], condition [B, 1, D] -> [B, N, D]."""
        layer = Layer(
            self.sizes, self.times, self.modulated, self.dtype, self.kinds, self.coords, parent=None
        )
        return one_after_another(self, layer, self.sizes.layers, x.astype(self.dtype), condition)


def one_after_another(
    module: nn.Module, layer: nn.Module, count: int, x: jax.Array, *told: jax.Array | None
) -> jax.Array:
    """Rows [B, N, D] behind so many layers of a module in the making, each of which is told the same; their parameters
    are stacked, and a loop goes over them."""

    def init(key):
        one = [None if y is None else jnp.zeros((1, *y.shape[1:])) for y in (x, *told)]
        return stacked(lambda k: layer.init(k, *one)["params"], key, count)

    def through(x, params):
        return layer.apply({"params": params}, x, *told), None

    return jax.lax.scan(through, x, module.param("layers", init))[0]


class Rows(nn.Module):
    """Patches of an image, or what stands for them, as rows: a product, and their places.

    Attributes:
      width: D.
      dtype: of the computation.
      axes: see `places`.
      placed: whether they have places at all.
    """

    width: int
    dtype: Any
    axes: tuple[int, ...] | None = None
    placed: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, own: jax.Array | None = None) -> jax.Array:
        """[B, N, C], own [N, D]: the places; None for learned ones -> [B, N, D]."""
        # As long as the places are: they are not to drown in what the patches hold.
        init = nn.initializers.normal((self.width * x.shape[-1]) ** -0.5)
        x = Dense(self.width, (None, "embed"), init, dtype=self.dtype, name="rows_in")(x)
        if not self.placed:
            return x
        own = places(self, x.shape[1], self.width, self.axes) if own is None else own
        return x + own.astype(self.dtype)


class EachLevel(nn.Module):
    """A product of the rows of each level.

    Attributes:
      levels: how many rows each has.
      features: size of the result.
      names: logical axis names of the kernels.
      kernel_init: their initialiser.
      dtype: of the computation.
    """

    levels: tuple[int, ...]
    features: int
    names: tuple[str, str]
    kernel_init: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, n, C], the first n rows -> [B, n, features]."""
        found, ends = [], np.cumsum(self.levels)
        for level, (end, count) in enumerate(zip(ends, self.levels, strict=True)):
            if end - count < x.shape[1]:
                dense = Dense(
                    self.features, self.names, self.kernel_init, dtype=self.dtype, name=f"level{level}"
                )
                found.append(dense(x[:, end - count : end]))
        return jnp.concatenate(found, axis=1)


def diagonal(first: int, count: int) -> tuple[tuple[int, int], ...]:
    """Places (i, i) of rows that lie in no picture, from i = first on."""
    return tuple((i, i) for i in range(first, first + count))


def lattice(first: int, sides: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Places of a grid's rows, row by row, of which the first lies at (first, first)."""
    return tuple((first + i, first + j) for i in range(sides[0]) for j in range(sides[1]))


def places(module: nn.Module, count: int, width: int, axes: tuple[int, ...] | None) -> jax.Array:
    """Of patches, learned, as rows [count, D]: a table, or with (h, w) sums of one vector each for row and column, with
    (t, h, w) for the frame too."""
    if axes is None:
        return table(module, "places", count, width)
    init = logical(nn.initializers.normal((len(axes) * width) ** -0.5), None, "embed")
    names = ("frames", "down", "across")[-len(axes) :]
    tables = [
        module.param(f"places_{name}", init, (side, width)) for name, side in zip(names, axes, strict=True)
    ]
    return functools.reduce(lambda x, y: x[..., None, :] + y, tables).reshape(count, width)


def table(module: nn.Module, name: str, rows: int, width: int, std: float = 0.0) -> jax.Array:
    """A learned table [rows, D] of a module in the making, first of unit vectors (TiTok's) or of a deviation."""
    init = nn.initializers.normal(std or width**-0.5)
    return module.param(name, logical(init, None, "embed"), (rows, width))


def norm(sizes: Sizes, name: str, affine: bool = True) -> Norm:
    """A norm before or after blocks."""
    return Norm(sizes.norm, affine and sizes.affine and sizes.outer_affine, sizes.eps, name=name)
