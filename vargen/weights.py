"""A generator's parameters as a model holds them: as they were given, and as decoding reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.layers import SCALE, Boxed
from vargen.schema import WEIGHTS

if TYPE_CHECKING:
    from vargen.generator import Generator

DTYPES = {"int8": jnp.int8, "float8": jnp.float8_e4m3fn}


class Weights:
    """Parameters, made ready for decoding once (`ready`) and kept.

    Where that changes any, those given go to the host: the device holds one copy, the one that is read.

    Args:
      given: as they were trained or published.
      form: of `schema.WEIGHTS`.

    Raises:
      UserError: no such form.
    """

    def __init__(self, given: Any, form: str = "full"):
        if form not in WEIGHTS:
            raise UserError(f"weights: expected {', '.join(WEIGHTS)}, found {form!r:.80}")
        self.given, self.form = given, form
        self._made: dict[tuple, Any] = {}

    def ready(self, generator: Generator) -> Any:
        """As a generator reads them; made once for every compute dtype."""
        wanted, platform = dtypes(generator), jax.default_backend()
        same = jax.tree.map(lambda x: x.dtype, self.given) == wanted
        shapes = jax.tree.map(jnp.shape, self.given) == shapes_of(generator)
        if self.form == "full" and same and shapes and not splits(generator, platform):
            return self.given
        key = generator.sequence.grid.size, *jax.tree.leaves(wanted)
        if key not in self._made:
            # From the host, where on a CPU they are: what isn't converted is not copied there.
            self.given = jax.device_get(self.given)
            params = firsts(generator, self.given)
            if self.form != "full":
                params = eight_bits(jax.tree.map(jnp.asarray, params), generator.boxes, self.form)
            self._made[key] = jax.device_put(ready(generator, params, platform))
        return self._made[key]


def ready(generator: Generator, params: Any, platform: str = "") -> Any:
    """Parameters as decoding reads them, which is to be done once, before any loop: what every pass would convert to
    the compute dtype is converted, and stages are split (`splits`). Passes give the same of both, to the last bit.
    Kernels of 8 bits stay so; what is ready already stays as it is."""
    for stage in generator.stages if splits(generator, platform) else ():
        params = stage.split(params)
    return _converted(params, dtypes(generator))


def shapes_of(generator: Generator) -> Any:
    """The shape of each parameter."""
    return jax.tree.map(lambda x: x.shape, nn.meta.unbox(generator.boxes))


def firsts(generator: Generator, params: Any) -> Any:
    """Of tables that have a row for each slot, or level, those of the first ones, where a generator is over fewer."""

    def first(x, box):
        return x[tuple(slice(n) for n in box.shape)] if x.shape != box.shape else x

    return jax.tree.map(first, params, nn.meta.unbox(generator.boxes))


def splits(generator: Generator, platform: str) -> bool:
    """Whether decoding goes through layers one by one: where loops take few rows through them, those of feeds with
    caches, as a loop in a loop would cut each layer out of its stack in every step; else on GPUs alone, whose products
    take no slices: VAR-d16 compiled for an H100 moves half of the bytes in half the launches then. Elsewhere a loop
    over the layers is as fast, and compiles in a fraction of the time."""
    return (generator.feed.loops and generator.feed.cached) or platform == "gpu"


def dtypes(generator: Generator) -> Any:
    """The dtype that each parameter is converted to wherever it is used, or its own."""

    def dtype(box):
        own = box.dtype if isinstance(box, Boxed) else None
        return jnp.dtype(nn.meta.unbox(box).dtype if own is None else own)

    return jax.tree.map(dtype, generator.boxes, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))


def _converted(params, wanted):
    """Parameters in the wanted dtypes; those of 8 bits and what stands beside them as they are."""
    if isinstance(params, dict):
        return {name: _converted(x, wanted[name]) if name in wanted else x for name, x in params.items()}
    if isinstance(params, list):
        return [_converted(x, wanted) for x in params]
    return (
        params if params.dtype.itemsize == 1 or params.dtype == wanted else jnp.asarray(params).astype(wanted)
    )


def eight_bits(params: Any, boxes: Any, form: str) -> Any:
    """Parameters with kernels of dense layers in 8 bits: each output's largest weight is the dtype's largest number.

    Args:
      params: float32 or bfloat16; kernels [..., I, O].
      boxes: of the same structure (`Generator.boxes`).
      form: "int8" (LLM.int8, arXiv 2208.07339, weights alone) or "float8".

    Returns:
      The tree with `kernel` in 8 bits and beside it `kernel_scale`, float32 [..., O].
    """
    dtype: Any = DTYPES[form]
    whole = jnp.issubdtype(dtype, jnp.integer)
    largest = float(jnp.iinfo(dtype).max if whole else jnp.finfo(dtype).max)
    found = {}
    for name, x in params.items():
        box = boxes[name]
        if isinstance(x, dict):
            found[name] = eight_bits(x, box, form)
        elif name == "kernel" and isinstance(box, Boxed) and box.dtype is not None:
            x = x.astype(jnp.float32)
            scale = jnp.max(jnp.abs(x), axis=-2, keepdims=True) / largest
            scaled = x / jnp.where(scale > 0, scale, 1.0)
            found |= {name: (jnp.round(scaled) if whole else scaled).astype(dtype), SCALE: scale[..., 0, :]}
        else:
            found[name] = x
    return found
