"""Small layers shared by mixers, feeds and heads; every parameter carries its logical axis names."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError

from vargen.kernels import Matrix, Norming, Onto, Part, gated, keeps_inputs, normalized, normed
from vargen.kernels.dropout import draw_words, drop
from vargen.kernels.few_rows import are_few, are_tiled, few_rows
from vargen.kernels.few_rows.reference import ACTIVATIONS, GATED, GELU, multiplied

Dtype = Any
SCALE = "kernel_scale"  # beside a kernel of 8 bits: what each of its outputs is multiplied by
INNER = {name: ACTIVATIONS[name] for name in (*GELU, "silu")}  # of position-wise networks
KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Linen(Protocol):
    """What is used of a Linen module from outside: protocols of parts that are modules have it."""

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Its parameters, as of `nn.Module.init`."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """What a method gives with parameters, as of `nn.Module.apply`."""
        ...


@dataclasses.dataclass(frozen=True)
class Initial:
    """How a generator's parameters start.

    Attributes:
      std: deviation; 0: Xavier's uniform distribution; negative: sqrt(1 / (3 D)), VAR's rule (arXiv 2404.02905,
        official code).
      width: D.
      truncated: whether the normal distribution is cut at two deviations, which leaves 0.88 of `std`.
    """

    std: float = 0.02
    width: int = 0
    truncated: bool = True

    def kernel(self, gain: float = 1.0):
        """The initialiser of a kernel, times `gain`."""
        if self.std == 0:
            return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")
        std = self.std if self.std > 0 else math.sqrt(1 / (3 * self.width))
        normal = nn.initializers.truncated_normal if self.truncated else nn.initializers.normal
        return normal(gain * std)

    def table(self):
        """The initialiser of a table of embeddings: as of a kernel, with a deviation of 0.02 in Xavier's place."""
        return dataclasses.replace(self, std=self.std or 0.02).kernel()


@flax.struct.dataclass
class Boxed(nn.LogicallyPartitioned):
    """A parameter with its logical axis names, and the dtype that it is converted to wherever it is used (None: that is
    its own, or not the same everywhere)."""

    dtype: Any = flax.struct.field(default=None, pytree_node=False)


def logical(init, *names: str | None, dtype: Dtype | None = None):
    """An initialiser whose parameter is boxed, see `Boxed`."""
    return lambda *args, **kwargs: Boxed(init(*args, **kwargs), names, dtype=dtype)


def stacked(init, key: jax.Array, count: int) -> Any:
    """Boxed parameters of so many layers [L, ...], each of `init` (key -> boxed) with a key of its own."""
    boxed = jax.vmap(init)(jax.random.split(key, count))
    return jax.tree.map(
        lambda box: box.replace(names=("layers", *box.names)),
        boxed,
        is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata),
    )


def parameter(module: nn.Module, name: str, init, shape: tuple[int, ...]) -> jax.Array:
    """As `module.param`, which traces the initialiser at every use for its shape: most of what a layer costs a program
    that is traced.

    Raises:
      flax.errors.ScopeParamShapeError: the parameter has another shape.
    """
    if not module.has_variable("params", name):
        return module.param(name, init, shape)
    value = nn.meta.unbox(module.get_variable("params", name))
    if value.shape != (*shape,):
        raise ScopeParamShapeError(name, "/".join(module.path), value.shape, shape)
    return value


class Dense(nn.Module):
    """x W + b over the last axis: [..., I] -> [..., features]; or over the last `axes`, of I numbers together. A kernel
    of 8 bits has a scale beside it (`SCALE`).

    Attributes:
      features: size of the result.
      names: logical axis names of the kernel [I, features].
      kernel_init: kernel initialiser.
      bias: whether there is a bias.
      dtype: compute dtype.
      axes: of x, over which it goes.
    """

    features: int
    names: tuple[str | None, str | None]
    kernel_init: Any = KERNEL_INIT
    bias: bool = True
    dtype: Dtype = jnp.float32
    axes: int = 1

    def __call__(self, x):
        return self.flat(x.reshape(*x.shape[: -self.axes], math.prod(x.shape[-self.axes :])))

    def flat(self, x):
        """The same of x [..., I], whatever its axes were."""
        return multiplied(x.astype(self.dtype), self.matrix(x.shape[-1]))

    @nn.compact
    def matrix(self, size: int) -> Matrix:
        """Its parameters for an input of this size, in the compute dtype or in 8 bits."""
        init = logical(self.kernel_init, *self.names, dtype=self.dtype)
        kernel, scale, bias = parameter(self, "kernel", init, (size, self.features)), None, None
        if self.has_variable("params", SCALE):
            scale = self.get_variable("params", SCALE)
        if self.bias:
            init = logical(nn.initializers.zeros, self.names[1], dtype=self.dtype)
            bias = parameter(self, "bias", init, (self.features,)).astype(self.dtype)
        return Matrix(kernel if kernel.dtype.itemsize == 1 else kernel.astype(self.dtype), scale, bias)


class Norm(nn.Module):
    """Layer or root-mean-square normalisation over the last axis, computed in float32.

    Attributes:
      kind: "layer" or "rms".
      affine: whether it has a learned scale (and, for "layer", a bias).
      eps: added to the variance.
      each: whether every vector along the axis before the last has these of its own.
    """

    kind: str = "layer"
    affine: bool = True
    eps: float = 1e-6
    each: bool = False

    def __call__(self, x, scale=None, shift=None):
        """x [..., D] normalised; where a condition modulates it, times 1 + scale, plus shift (each a `Part` or an array
        that broadcasts to x)."""
        scale, shift = (y.rows() if isinstance(y, Part) else y for y in (scale, shift))
        return normalized(x, self._own(x), scale, shift, self.kind, self.eps)

    def ahead(self, x, scale: Part | None = None, shift: Part | None = None) -> Ahead:
        """The same of x [B, N, D], left to what reads it."""
        return Ahead(x, Norming(self._own(x), scale, shift, self.kind, self.eps))

    @nn.compact
    def _own(self, x) -> dict[str, jax.Array]:
        names, shape = (("heads", "embed"), x.shape[-2:]) if self.each else (("embed",), x.shape[-1:])
        own = {}
        if self.affine:
            own["scale"] = parameter(self, "scale", logical(nn.initializers.ones, *names), shape)
            if self.kind == "layer":
                own["bias"] = parameter(self, "bias", logical(nn.initializers.zeros, *names), shape)
        return own


class Ahead(NamedTuple):
    """Rows [B, N, D] and the norm that they are still to get, which a product of few rows makes with its own launch."""

    x: jax.Array
    norm: Norming

    @property
    def shape(self) -> tuple[int, ...]:
        """[B, N, D]."""
        return self.x.shape

    def made(self) -> jax.Array:
        """The rows with their norm; also of heads, [B, N, H, D]."""
        if self.x.ndim == 3 and are_tiled(
            self.x.shape, self.x.dtype
        ):  # of more XLA's is no slower, and fused
            return normed(self.x, self.norm)
        return self.norm(self.x)


def product(x, *layers: Dense, act: str = "none", onto: Onto | None = None) -> jax.Array:
    """`products` of one layer, or of the two of a gated `act`: [B, N, features]."""
    (y,) = products(x, *layers, act=act, onto=onto)
    return y


def products(x, *layers: Dense, act: str = "none", onto: Onto | None = None) -> list[jax.Array]:
    """act(layer(x)) by each of the layers, of x [B, N, I], also `Ahead`; added to what `onto` says. For steps of
    decoding, whose few rows make all this one launch on a GPU, and hundreds all but the norm, see
    `kernels.few_rows`."""
    rows, norm = x if isinstance(x, Ahead) else (x, None)
    if are_few(rows.shape):
        matrices = [layer.matrix(rows.shape[-1]) for layer in layers]
        return few_rows(rows, matrices, norm=norm, act=act, onto=onto, dtype=layers[0].dtype)
    x = rows if norm is None else x.made()
    if act not in GATED and are_tiled(x.shape, layers[0].dtype):
        matrices = [layer.matrix(x.shape[-1]) for layer in layers]
        return few_rows(x, matrices, act=act, onto=onto, dtype=layers[0].dtype)
    found = [layer.flat(x) for layer in layers]
    found = [GATED[act](*found)] if act in GATED else [ACTIVATIONS[act](y) for y in found]
    if onto is None:
        return found
    return [onto.residual + (y if onto.gate is None else gated(y, onto.gate.rows())) for y in found]


class Dropout(nn.Module):
    """`drop` in training (with the rng "dropout"), of which nothing is kept for the backward pass but the words."""

    rate: float

    @nn.compact
    def __call__(self, x, train: bool):
        if not train or not self.rate:
            return x
        return _dropped(x, draw_words(self.make_rng("dropout"), (*x.shape[:-1], 1)), self.rate)


def _drop_channels(x, words, rate: float):
    return drop(x, words, np.arange(x.shape[-1], dtype=np.int32), rate)


_dropped = keeps_inputs(_drop_channels, static_argnums=(2,))


class Mlp(nn.Module):
    """The position-wise network of a block: [..., D] -> [..., D].

    Attributes:
      hidden: inner width.
      kind: "gelu" (erf), "gelu_tanh", "gelu_sigmoid" (x sigmoid(1.702 x)), "silu" (x sigmoid(x)), or gated: "swiglu",
        "geglu" (erf; Shazeer, arXiv 2002.05202).
      kernel_init, out_init: initialisers of the inner and the outer kernels.
      bias: whether the layers have biases.
      dropout: rate after the inner activation (but for "swiglu"), as in timm, and after the result.
      dtype: compute dtype.
    """

    hidden: int
    kind: str
    kernel_init: Any
    out_init: Any
    bias: bool = True
    dropout: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False, onto: Onto | None = None):
        """x [..., D] -> [..., D]; but in training of x that may be `Ahead`, and added to what `onto` says."""
        if self.kind not in INNER and self.kind not in GATED:
            raise ValueError(f"Mlp: expected a kind of {', '.join([*INNER, *GATED])}, found {self.kind!r}")
        inner = [
            Dense(self.hidden, ("embed", "mlp"), self.kernel_init, self.bias, self.dtype, name=name)
            for name in (("gate", "up") if self.kind in GATED else ("up",))
        ]
        outer = Dense(x.shape[-1], ("mlp", "embed"), self.out_init, self.bias, self.dtype, name="down")
        if not train:
            return product(product(x, *inner, act=self.kind), outer, onto=onto)
        y = (GATED | INNER)[self.kind](*(layer(x) for layer in inner))
        if self.kind != "swiglu":
            y = Dropout(self.dropout)(y, train)
        return Dropout(self.dropout)(outer(y), train)


class Embed(nn.Module):
    """A learned table [size, width]; indices [...] -> [..., width].

    Raises:
      ValueError: an index beyond the table, where that is known before tracing.
    """

    size: int
    width: int
    table_init: Any
    name_axis: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, index):
        init = logical(self.table_init, self.name_axis, "embed", dtype=self.dtype)
        table = parameter(self, "table", init, (self.size, self.width))
        if isinstance(index, np.ndarray) and index.size and not 0 <= index.min() <= index.max() < self.size:
            found = f"{index.min()} to {index.max()}"
            raise ValueError(
                f"{self.name or 'table'}: expected indices from 0 to {self.size - 1}, found {found}"
            )
        return jnp.take(table, index, axis=0).astype(self.dtype)


def sinusoid(t, dim: int, period: float = 10000.0) -> jax.Array:
    """float32 [..., dim]: cosines, then sines of t [...] at geometric frequencies (DiT's time embedding)."""
    half = dim // 2
    # At t = 1000 one rounding of a frequency is 6e-5 of an angle: rounded in the order of the published code.
    exponent = np.float32(-math.log(period)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angles = t[..., None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def place_waves(places: np.ndarray, width: int) -> np.ndarray:
    """float32 [n, W] of places int [n, 2] (row, column): sines, then cosines of the column; then of the row."""
    frequencies = 10000.0 ** -(np.arange(width // 4) / (width // 4))
    angles = places[:, ::-1, None] * frequencies
    return (
        np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
        .reshape(len(places), width)
        .astype(np.float32)
    )
