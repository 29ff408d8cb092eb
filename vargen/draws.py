"""Where the randomness of sampling comes from: a key for every slot, or a recording."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

APART = 2**32 - 1  # the number of the draw of `gumbel`, which no step and no code has


class Draws(Protocol):
    """Independent draws for each of some slots [B, n]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, n)."""
        ...

    def at(self, slots: jax.Array) -> Draws:
        """Those of slots int [B, m]."""
        ...

    def of(self, part: Any) -> Draws:
        """Those of one of several draws that each slot takes (int, or traced)."""
        ...

    def normal(self, shape: tuple[int, ...]) -> jax.Array:
        """Standard normal numbers: float32 [B, n, *shape]."""
        ...

    def gumbel(self) -> jax.Array:
        """A number of the standard Gumbel distribution for each, apart from those of `choose`: float32 [B, n]."""
        ...

    def choose(self, logits: jax.Array, greedy: Any = False) -> jax.Array:
        """Indices int32 [B, n] from softmax(logits [B, n, K]); the likeliest where `greedy`, bool []."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Keyed:
    """Draws by PRNG keys [B, n].

    What a slot draws depends on its key alone, so that a result doesn't change with how steps are grouped or examples
    sharded.
    """

    keys: jax.Array

    @property
    def shape(self):
        return self.keys.shape

    def at(self, slots):
        return Keyed(jax.vmap(lambda k, s: k[s])(self.keys, slots))

    def of(self, part):
        return Keyed(jax.vmap(jax.vmap(lambda k: jax.random.fold_in(k, part)))(self.keys))

    def normal(self, shape):
        return jax.vmap(jax.vmap(lambda k: jax.random.normal(k, shape)))(self.keys)

    def gumbel(self):
        return jax.vmap(jax.vmap(lambda k: jax.random.gumbel(jax.random.fold_in(k, APART))))(self.keys)

    def choose(self, logits, greedy=False):
        noise = jax.vmap(jax.vmap(lambda k: jax.random.gumbel(k, logits.shape[-1:])))(self.keys)
        return jnp.argmax(logits + jnp.where(greedy, 0.0, noise), axis=-1).astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recorded:
    """Draws as somebody else made them, each slot's for one use.

    Attributes:
      normals: float32 [B, n, ...], or None.
      uniforms: float32 [B, n], or of Q codes a slot [B, n, Q], in [0, 1): codes by the inverse of the cumulative
        distribution; or None.
      gumbels: float32 [B, n, K]: codes as the largest of their logits with these added; or None.
      apart: float32 [B, n]: what `gumbel` gives; or None.
    """

    normals: Any = None
    uniforms: Any = None
    gumbels: Any = None
    apart: Any = None

    @property
    def shape(self):
        return jax.tree.leaves(self)[0].shape[:2]

    def at(self, slots):
        return jax.tree.map(lambda x: jax.vmap(lambda a, s: a[s])(x, slots), self)

    def of(self, part):
        return jax.tree.map(lambda x: x[:, :, part], self)

    def gumbel(self):
        return self.apart

    def normal(self, shape):
        if self.normals.shape[2:] != shape:
            raise ValueError(f"recorded noise: expected [B, n, {shape}], found {self.normals.shape}")
        return self.normals

    def choose(self, logits, greedy=False):
        if self.gumbels is not None:
            noisy = logits + jnp.where(greedy, 0.0, self.gumbels)
            return jnp.argmax(noisy, axis=-1).astype(jnp.int32)
        reached = jnp.cumsum(jax.nn.softmax(logits), axis=-1) > self.uniforms[..., None]
        return jnp.argmax(jnp.where(greedy, logits, reached), axis=-1).astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Told:
    """Codes that are known, in the place of what would be drawn: for their scores.

    Attributes:
      content: int32 [B, n], or of Q codes a slot [B, n, Q].
    """

    content: jax.Array

    @property
    def shape(self):
        return self.content.shape[:2]

    def at(self, slots):
        return Told(jax.vmap(lambda c, s: c[s])(self.content, slots))

    def of(self, part):
        return Told(self.content[:, :, part])

    def normal(self, shape):
        raise ValueError("told draws: expected codes to be asked for, found numbers of a normal distribution")

    def gumbel(self):
        return jnp.zeros(self.shape)

    def choose(self, logits, greedy=False):
        return self.content.astype(jnp.int32)


def keyed(key: jax.Array, batch: int, slots: int) -> Keyed:
    """Keys [B, N], of the key, the example's place in the batch and the slot."""
    fold = jax.random.fold_in
    return Keyed(
        jax.vmap(lambda b: jax.vmap(lambda s: fold(fold(key, b), s))(jnp.arange(slots)))(jnp.arange(batch))
    )
