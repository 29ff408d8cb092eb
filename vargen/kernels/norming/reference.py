"""Norms that a kernel makes on its way, and what modulates them."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from vargen.kernels.keeping import keeps_inputs

STATIC = dict(static=True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Part:
    """One of the vectors by which a condition modulates rows, still among the others.

    Attributes:
      values: [1 or B, M, P, D].
      at: None: M is 1 or as many as an example has rows; or int32 [], traced: of all M this one counts.
      index: which of the P.
    """

    values: jax.Array
    at: jax.Array | None
    index: int = dataclasses.field(metadata=STATIC)

    def rows(self) -> jax.Array:
        """[1 or B, M or 1, D]."""
        values = self.values
        if self.at is not None:
            values = jax.lax.dynamic_slice_in_dim(values, self.at, 1, axis=1)
        if values.shape[1] == 1:
            return values[:, :, self.index]
        # As a product made them: on TPUs the axis of P costs a launch that moves them all, and another back.
        flat, size = values.reshape(*values.shape[:2], -1), values.shape[-1]
        return flat[..., self.index * size : (self.index + 1) * size]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Norming:
    """A norm of x [B, N, D] that is still to be made, see `normalized`.

    Attributes:
      own: learned `scale` and `bias` [D] (of heads also [H, D] or [H, 1]), either, or neither.
      scale, shift: None, or the condition's.
      kind: "layer", "rms", or "unit", which makes vectors of length 1.
      eps: added to the variance; of "unit" the least length that vectors are divided by.
    """

    own: dict[str, jax.Array]
    scale: Part | None
    shift: Part | None
    kind: str = dataclasses.field(metadata=STATIC)
    eps: float = dataclasses.field(metadata=STATIC)

    @keeps_inputs
    def __call__(self, x) -> jax.Array:
        """x with the norm."""
        scale, shift = (None if part is None else part.rows() for part in (self.scale, self.shift))
        return normalized(x, self.own, scale, shift, self.kind, self.eps)


@functools.partial(keeps_inputs, static_argnums=(4, 5))
def normalized(x, own, scale, shift, kind: str, eps: float):
    """x [..., D] normalised in float32; where a condition modulates it, times 1 + scale, plus shift (arrays that
    broadcast to x)."""
    y = x.astype(jnp.float32)
    if kind == "unit":
        y = y / jnp.maximum(jnp.linalg.norm(y, axis=-1, keepdims=True), eps)
    else:
        y = y - jnp.mean(y, axis=-1, keepdims=True) if kind == "layer" else y
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
    y = y * own["scale"] if "scale" in own else y
    y = y + own["bias"] if "bias" in own else y
    y = y.astype(x.dtype)
    return y if scale is None else y * (1 + scale) + shift
